package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
)

// beanstalkd: put, reserve and delete, pipelined as far as a batch goes.
type beanstalk struct{ address string }

type beanstalkLink struct {
	connection net.Conn
	reader     *bufio.Reader
	ids        []uint64
}

func (d *beanstalk) open() (*beanstalkLink, error) {
	connection, err := net.Dial("tcp", d.address)
	if err != nil {
		return nil, err
	}
	return &beanstalkLink{connection: connection, reader: bufio.NewReaderSize(connection, 1<<18)}, nil
}

func (d *beanstalk) prepare() error                 { return nil }
func (d *beanstalk) producer(int) (producer, error) { return d.open() }
func (d *beanstalk) consumer(int) (consumer, error) { return d.open() }

func (l *beanstalkLink) expect(word string, count int) error {
	for ; count > 0; count-- {
		line, err := l.reader.ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, word) {
			return fmt.Errorf("beanstalkd: %s", strings.TrimSpace(line))
		}
	}
	return nil
}

func (l *beanstalkLink) send(bodies [][]byte) error {
	var out []byte
	for _, body := range bodies {
		out = fmt.Appendf(out, "put 0 0 600 %d\r\n%s\r\n", len(body), body)
	}
	if _, err := l.connection.Write(out); err != nil {
		return err
	}
	return l.expect("INSERTED", len(bodies))
}

func (l *beanstalkLink) receive(count int) ([][]byte, error) {
	// The first may wait; the others are asked for only as long as there is something.
	var bodies [][]byte
	l.ids = l.ids[:0]
	ask := "reserve-with-timeout 1\r\n" + strings.Repeat("reserve-with-timeout 0\r\n", count-1)
	if _, err := l.connection.Write([]byte(ask)); err != nil {
		return nil, err
	}
	for ; count > 0; count-- {
		line, err := l.reader.ReadString('\n')
		if err != nil {
			return nil, err
		}
		var id uint64
		var size int
		if _, err := fmt.Sscanf(line, "RESERVED %d %d", &id, &size); err != nil {
			continue
		}
		body := make([]byte, size+2)
		if _, err := io.ReadFull(l.reader, body); err != nil {
			return nil, err
		}
		l.ids = append(l.ids, id)
		bodies = append(bodies, body[:size])
	}
	return bodies, nil
}

func (l *beanstalkLink) confirm() error {
	var out []byte
	for _, id := range l.ids {
		out = fmt.Appendf(out, "delete %d\r\n", id)
	}
	if _, err := l.connection.Write(out); err != nil {
		return err
	}
	return l.expect("DELETED", len(l.ids))
}
