package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// Redis Streams: XADD, XREADGROUP, and for each message XACK and XDEL, so that it is gone.
type redis struct {
	address string
	fresh   bool
}

type redisLink struct {
	connection net.Conn
	reader     *bufio.Reader
	out        []byte
	name       string
	ids        []string
}

func (d *redis) open(name string) (*redisLink, error) {
	connection, err := net.Dial("tcp", d.address)
	if err != nil {
		return nil, err
	}
	return &redisLink{connection: connection, reader: bufio.NewReaderSize(connection, 1<<18),
		name: name}, nil
}

func (d *redis) prepare() error {
	link, err := d.open("")
	if err != nil {
		return err
	}
	if d.fresh {
		link.command("DEL", "bench")
		link.command("XGROUP", "CREATE", "bench", "group", "0", "MKSTREAM")
		_, err = link.answers(2)
	}
	return err
}

func (d *redis) producer(int) (producer, error) { return d.open("") }
func (d *redis) consumer(number int) (consumer, error) {
	return d.open("c" + strconv.Itoa(number))
}

func (l *redisLink) command(words ...string) {
	l.out = append(l.out, '*')
	l.out = append(strconv.AppendInt(l.out, int64(len(words)), 10), '\r', '\n')
	for _, word := range words {
		l.out = append(l.out, '$')
		l.out = append(strconv.AppendInt(l.out, int64(len(word)), 10), '\r', '\n')
		l.out = append(append(l.out, word...), '\r', '\n')
	}
}

// answers writes what was prepared and reads so many replies.
func (l *redisLink) answers(count int) ([]any, error) {
	_, err := l.connection.Write(l.out)
	l.out = l.out[:0]
	found := make([]any, 0, count)
	for ; err == nil && count > 0; count-- {
		var one any
		if one, err = l.reply(); err == nil {
			found = append(found, one)
		}
	}
	return found, err
}

func (l *redisLink) reply() (any, error) {
	line, err := l.reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	text := strings.TrimSuffix(line[1:], "\r\n")
	size, _ := strconv.Atoi(text)
	switch line[0] {
	case '-':
		return nil, fmt.Errorf("redis: %s", text)
	case '$':
		if size < 0 {
			return nil, nil
		}
		body := make([]byte, size+2)
		_, err = io.ReadFull(l.reader, body)
		return body[:size], err
	case '*':
		var parts []any
		for ; err == nil && size > 0; size-- {
			var part any
			part, err = l.reply()
			parts = append(parts, part)
		}
		return parts, err
	}
	return text, nil
}

func (l *redisLink) send(bodies [][]byte) error {
	for _, body := range bodies {
		l.command("XADD", "bench", "*", "m", string(body))
	}
	_, err := l.answers(len(bodies))
	return err
}

func (l *redisLink) receive(count int) ([][]byte, error) {
	l.command("XREADGROUP", "GROUP", "group", l.name, "COUNT", strconv.Itoa(count),
		"BLOCK", "100", "STREAMS", "bench", ">")
	found, err := l.answers(1)
	l.ids = l.ids[:0]
	if err != nil || found[0] == nil {
		return nil, err
	}
	streams, _ := found[0].([]any)
	if len(streams) == 0 {
		return nil, nil
	}
	var bodies [][]byte
	for _, entry := range streams[0].([]any)[1].([]any) {
		parts := entry.([]any)
		l.ids = append(l.ids, string(parts[0].([]byte)))
		bodies = append(bodies, parts[1].([]any)[1].([]byte))
	}
	return bodies, nil
}

func (l *redisLink) confirm() error {
	for _, id := range l.ids {
		l.command("XACK", "bench", "group", id)
		l.command("XDEL", "bench", id)
	}
	_, err := l.answers(2 * len(l.ids))
	return err
}
