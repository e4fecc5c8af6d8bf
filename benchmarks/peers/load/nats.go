package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// JetStream: a work queue in files, published to and acknowledged message by message.
type natsDriver struct {
	address string
	fresh   bool
}

type natsLink struct {
	connection *nats.Conn
	stream     jetstream.JetStream
	pull       jetstream.Consumer
	taken      []jetstream.Msg
}

func (d *natsDriver) open() (*natsLink, error) {
	connection, err := nats.Connect("nats://"+d.address, nats.MaxReconnects(0))
	if err != nil {
		return nil, err
	}
	stream, err := jetstream.New(connection, jetstream.WithPublishAsyncMaxPending(8192))
	return &natsLink{connection: connection, stream: stream}, err
}

func (d *natsDriver) prepare() error {
	link, err := d.open()
	if err != nil || !d.fresh {
		return err
	}
	ctx := context.Background()
	_ = link.stream.DeleteStream(ctx, "BENCH")
	_, err = link.stream.CreateStream(ctx, jetstream.StreamConfig{Name: "BENCH",
		Subjects: []string{"bench"}, Storage: jetstream.FileStorage,
		Retention: jetstream.WorkQueuePolicy})
	if err == nil {
		_, err = link.stream.CreateConsumer(ctx, "BENCH", jetstream.ConsumerConfig{
			Durable: "C", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 50000})
	}
	return err
}

func (d *natsDriver) producer(int) (producer, error) { return d.open() }
func (d *natsDriver) consumer(int) (consumer, error) {
	link, err := d.open()
	if err == nil {
		link.pull, err = link.stream.Consumer(context.Background(), "BENCH", "C")
	}
	return link, err
}

func (l *natsLink) send(bodies [][]byte) error {
	if len(bodies) == 1 {
		_, err := l.stream.Publish(context.Background(), "bench", bodies[0])
		return err
	}
	waiting := make([]jetstream.PubAckFuture, 0, len(bodies))
	for _, body := range bodies {
		future, err := l.stream.PublishAsync("bench", body)
		if err != nil {
			return err
		}
		waiting = append(waiting, future)
	}
	for _, future := range waiting {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			return err
		}
	}
	return nil
}

func (l *natsLink) receive(count int) ([][]byte, error) {
	l.taken = l.taken[:0]
	batch, err := l.pull.Fetch(count, jetstream.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		if errors.Is(err, nats.ErrTimeout) {
			return nil, nil
		}
		return nil, err
	}
	var bodies [][]byte
	for message := range batch.Messages() {
		l.taken = append(l.taken, message)
		bodies = append(bodies, message.Data())
	}
	return bodies, nil
}

func (l *natsLink) confirm() error {
	for _, message := range l.taken {
		if err := message.Ack(); err != nil {
			return err
		}
	}
	return nil
}
