package main

import (
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// RabbitMQ: a quorum queue, persistent messages, publisher confirms, one ack a message.
type rabbit struct {
	address string
	fresh   bool
}

type rabbitLink struct {
	channel    *amqp.Channel
	deliveries <-chan amqp.Delivery
	taken      []amqp.Delivery
}

func (d *rabbit) open() (*rabbitLink, error) {
	connection, err := amqp.Dial("amqp://guest:guest@" + d.address + "/")
	if err != nil {
		return nil, err
	}
	channel, err := connection.Channel()
	return &rabbitLink{channel: channel}, err
}

func (d *rabbit) prepare() error {
	link, err := d.open()
	if err != nil {
		return err
	}
	if d.fresh {
		_, err = link.channel.QueueDelete("bench", false, false, false)
	}
	if err == nil {
		_, err = link.channel.QueueDeclare("bench", true, false, false, false,
			amqp.Table{"x-queue-type": "quorum"})
	}
	return err
}

func (d *rabbit) producer(int) (producer, error) {
	link, err := d.open()
	if err == nil {
		err = link.channel.Confirm(false)
	}
	return link, err
}

func (d *rabbit) consumer(int) (consumer, error) {
	link, err := d.open()
	if err == nil {
		err = link.channel.Qos(1000, 0, false)
	}
	if err == nil {
		link.deliveries, err = link.channel.Consume("bench", "", false, false, false, false, nil)
	}
	return link, err
}

func (l *rabbitLink) send(bodies [][]byte) error {
	waiting := make([]*amqp.DeferredConfirmation, 0, len(bodies))
	for _, body := range bodies {
		one, err := l.channel.PublishWithDeferredConfirm("", "bench", false, false,
			amqp.Publishing{DeliveryMode: amqp.Persistent, Body: body})
		if err != nil {
			return err
		}
		waiting = append(waiting, one)
	}
	for _, one := range waiting {
		if !one.Wait() {
			return amqp.ErrClosed
		}
	}
	return nil
}

func (l *rabbitLink) receive(count int) ([][]byte, error) {
	l.taken = l.taken[:0]
	var bodies [][]byte
	limit := time.After(100 * time.Millisecond)
	for len(bodies) < count {
		select {
		case delivery, going := <-l.deliveries:
			if !going {
				return nil, amqp.ErrClosed
			}
			l.taken = append(l.taken, delivery)
			bodies = append(bodies, delivery.Body)
			continue
		default:
		}
		if len(bodies) > 0 {
			break
		}
		select {
		case delivery, going := <-l.deliveries:
			if !going {
				return nil, amqp.ErrClosed
			}
			l.taken = append(l.taken, delivery)
			bodies = append(bodies, delivery.Body)
		case <-limit:
			return nil, nil
		}
	}
	return bodies, nil
}

func (l *rabbitLink) confirm() error {
	for _, delivery := range l.taken {
		if err := delivery.Ack(false); err != nil {
			return err
		}
	}
	return nil
}
