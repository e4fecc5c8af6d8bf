// Command load sends to a queue and receives from it, the same way for every kind of server.
//
//	load -kind redis -address 127.0.0.1:6379 -work send -producers 64 -batch 1 -seconds 4
//	load -kind redis -address 127.0.0.1:6379 -work both -producers 4 -consumers 4 -batch 100
//
// It prints one line of JSON. A latency of "send" is that of a request; of "both", from the moment
// a message was due to be sent until it was received. With -rate messages are due at that rate,
// whether or not the server keeps up, so that a stall is not hidden by the sender's own waiting.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var penstockDurability byte = 1

type load struct {
	driver               driver
	size, batch, window  int
	count                int64
	rate                 float64
	began                time.Time
	warm, length         time.Duration
	span                 atomic.Pointer[span]
	sent, received, last atomic.Int64
	errors               atomic.Int64
	latencies            sync.Mutex
	all                  []int64
	acknowledged         float64
}

// A span is what is measured: it begins some time after the first answer, or, of "both", after the
// first message came through, because some servers take seconds to know a consumer.
type span struct{ begin, end time.Time }

// share says which part of a request lay in the span: one that takes longer than the span, as a
// thousand syncs of a slow disk do, counts for what was done of it meanwhile, not for nothing.
func (s *span) share(from, to time.Time) float64 {
	if s == nil || !to.After(from) {
		return 0
	}
	begin, end := from, to
	if s.begin.After(begin) {
		begin = s.begin
	}
	if s.end.Before(end) {
		end = s.end
	}
	return max(0, float64(end.Sub(begin))/float64(to.Sub(from)))
}

const startLimit = 60 * time.Second

func (l *load) start() *span {
	now := time.Now()
	l.span.CompareAndSwap(nil, &span{now.Add(l.warm), now.Add(l.warm + l.length)})
	return l.span.Load()
}

// over says whether the span has ended, or never began.
func (l *load) over(now time.Time) bool {
	if s := l.span.Load(); s != nil {
		return now.After(s.end)
	}
	return now.Sub(l.began) > startLimit
}

func main() {
	kind := flag.String("kind", "penstock", "which protocol")
	address := flag.String("address", "", "host:port")
	work := flag.String("work", "send", "send, both, receive")
	producers := flag.Int("producers", 1, "connections that send")
	consumers := flag.Int("consumers", 0, "connections that receive")
	batch := flag.Int("batch", 1, "messages in a request")
	size := flag.Int("size", 128, "bytes of a body, at least 16")
	seconds := flag.Float64("seconds", 4, "how long, after a warm-up")
	warm := flag.Float64("warm-up", 0.5, "not measured")
	count := flag.Int64("count", 0, "end after so many messages, or the seconds")
	rate := flag.Float64("rate", 0, "messages a second that are due, 0: as fast as it goes")
	window := flag.Int("window", 10000, "messages that may be sent and not yet received")
	keep := flag.Bool("keep", false, "leave what the queue holds")
	level := flag.String("durability", "disk", "what penstock is asked for")
	flag.Parse()
	if *level == "kernel" {
		penstockDurability = 0
	}
	driver, err := newDriver(*kind, *address, !*keep && *work != "receive")
	fail(err)
	fail(driver.prepare())
	l := &load{driver: driver, size: *size, batch: *batch, count: *count, rate: *rate}
	if *work == "both" {
		l.window = *window
	}
	l.began = time.Now()
	l.warm, l.length = time.Duration(*warm*1e9), time.Duration(*seconds*1e9)
	if *count > 0 {
		l.warm = 0
	}
	if *work == "receive" || *count > 0 {
		l.start()
	}
	var group sync.WaitGroup
	start := func(many int, run func(int) error) {
		for number := range many {
			group.Add(1)
			go func() {
				defer group.Done()
				if err := run(number); err != nil {
					l.errors.Add(1)
					fmt.Fprintln(os.Stderr, err)
				}
			}()
		}
	}
	if *work != "receive" {
		start(*producers, func(number int) error { return l.produce(number, *producers) })
	}
	if *work != "send" {
		start(*consumers, l.consume)
	}
	group.Wait()
	l.tell(*work)
}

func (l *load) produce(number, producers int) error {
	link, err := l.driver.producer(number)
	if err != nil {
		return err
	}
	bodies := make([][]byte, l.batch)
	for at := range bodies {
		bodies[at] = body(l.size)
	}
	interval := time.Duration(0)
	if l.rate > 0 {
		interval = time.Duration(float64(l.batch*producers) / l.rate * 1e9)
	}
	// Until a first message has come through there is only a trickle: what piled up while the server
	// got to know its consumers would be in every latency after it.
	for l.window > 0 && l.span.Load() == nil && !l.over(time.Now()) {
		if number == 0 {
			stamp(bodies[0], time.Now())
			if err := link.send(bodies[:1]); err != nil {
				return err
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	// Producers are due one after the other, not all at once.
	due := time.Now().Add(interval * time.Duration(number) / time.Duration(producers))
	var found []int64
	var done float64
	for {
		now := time.Now()
		if interval > 0 {
			time.Sleep(due.Sub(now))
			now = due
			due = due.Add(interval)
		}
		if l.over(time.Now()) || l.count > 0 && l.sent.Load() >= l.count {
			break
		}
		for l.window > 0 && l.sent.Load()-l.received.Load() > int64(l.window) &&
			!l.over(time.Now()) {
			time.Sleep(50 * time.Microsecond)
			if interval == 0 {
				now = time.Now()
			}
		}
		for at := range bodies {
			stamp(bodies[at], now)
		}
		asked := time.Now()
		if err = link.send(bodies); err != nil {
			break
		}
		l.sent.Add(int64(l.batch))
		if l.window == 0 {
			answered := time.Now()
			share := l.start().share(asked, answered)
			done += share * float64(l.batch)
			if share > 0 {
				found = append(found, int64(answered.Sub(now)))
			}
		}
	}
	l.keep(found, done)
	return err
}

func (l *load) consume(number int) error {
	link, err := l.driver.consumer(number)
	if err != nil {
		return err
	}
	var found []int64
	var done float64
	idle := time.Now()
	before := idle
	for {
		bodies, err := link.receive(max(l.batch, 1))
		if err != nil {
			return err
		}
		now := time.Now()
		if len(bodies) > 0 {
			idle = now
			if err := link.confirm(); err != nil {
				return err
			}
			l.last.Store(int64(time.Since(l.began)))
		}
		mine := 0
		for _, body := range bodies {
			due := unstamp(body)
			// What an earlier run left is cleared away, but it is not this run's.
			if due < l.began.UnixNano() && l.count == 0 {
				continue
			}
			mine++
			l.received.Add(1)
			if l.start().share(before, now) > 0 && l.count == 0 {
				found = append(found, now.UnixNano()-due)
			}
		}
		settled := time.Now()
		done += l.span.Load().share(before, settled) * float64(mine)
		before = settled
		if l.over(now) || l.count > 0 && l.received.Load() >= l.count ||
			l.count > 0 && time.Since(idle) > 10*time.Second {
			break
		}
	}
	l.keep(found, done)
	return nil
}

// A body is text, because some servers take nothing else: the time in letters, then filling.
func body(size int) []byte {
	made := make([]byte, max(size, 16))
	for at := range made {
		made[at] = 'x'
	}
	return made
}

func stamp(body []byte, now time.Time) {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], uint64(now.UnixNano()))
	for at, value := range raw {
		body[2*at], body[2*at+1] = 'a'+value>>4, 'a'+value&15
	}
}

func unstamp(body []byte) int64 {
	var raw [8]byte
	for at := range raw {
		raw[at] = (body[2*at]-'a')<<4 | (body[2*at+1] - 'a')
	}
	return int64(binary.BigEndian.Uint64(raw[:]))
}

func (l *load) keep(found []int64, messages float64) {
	l.latencies.Lock()
	defer l.latencies.Unlock()
	l.acknowledged += messages
	l.all = append(l.all, found...)
}

func (l *load) tell(work string) {
	slices.Sort(l.all)
	seconds := l.length.Seconds()
	messages := l.acknowledged
	total := l.sent.Load()
	if l.count > 0 {
		seconds = time.Since(l.began).Seconds()
		if work == "receive" {
			seconds = time.Duration(l.last.Load()).Seconds()
			total = l.received.Load()
		}
		messages = float64(total)
	}
	told := map[string]any{"rate": messages / seconds, "messages": messages, "seconds": seconds,
		"acknowledged": total, "errors": l.errors.Load()}
	for name, share := range map[string]float64{"p50_us": .5, "p90_us": .9, "p99_us": .99,
		"p999_us": .999, "max_us": 1} {
		if len(l.all) > 0 {
			told[name] = float64(l.all[int(share*float64(len(l.all)-1))]) / 1e3
		}
	}
	line, _ := json.Marshal(told)
	fmt.Println(string(line))
	if l.errors.Load() > 0 {
		os.Exit(1)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}
