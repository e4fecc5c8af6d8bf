package main

import "fmt"

// A driver speaks to one kind of server. What it opens is used by one goroutine at a time.
type driver interface {
	// prepare makes an empty queue, once, before anything else is opened.
	prepare() error
	producer(number int) (producer, error)
	consumer(number int) (consumer, error)
}

// send returns when every body was acknowledged, at the level the server was started with.
type producer interface {
	send(bodies [][]byte) error
}

// receive returns at most so many bodies, none if nothing came within a moment; confirm settles
// all of them, each as one message, and returns when the server was told (and has answered, if
// the protocol has an answer).
type consumer interface {
	receive(count int) ([][]byte, error)
	confirm() error
}

func newDriver(kind, address string, fresh bool) (driver, error) {
	switch kind {
	case "penstock":
		return &penstock{address: address}, nil
	case "redis":
		return &redis{address: address, fresh: fresh}, nil
	case "nats":
		return &natsDriver{address: address, fresh: fresh}, nil
	case "rabbitmq":
		return &rabbit{address: address, fresh: fresh}, nil
	case "beanstalkd":
		return &beanstalk{address: address}, nil
	case "elasticmq":
		return &elastic{address: address}, nil
	}
	return nil, fmt.Errorf("no driver for %q", kind)
}
