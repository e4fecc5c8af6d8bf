package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// beanstalkd: put, reserve and delete, pipelined as far as a batch goes.
type beanstalk struct{ address string }

type beanstalkLink struct {
	connection net.Conn
	reader     *bufio.Reader
	ids        []uint64
	out        []byte
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
		line, err := l.reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(line, []byte(word)) {
			return fmt.Errorf("beanstalkd: %s", bytes.TrimSpace(line))
		}
	}
	return nil
}

func (l *beanstalkLink) send(bodies [][]byte) error {
	l.out = l.out[:0]
	for _, body := range bodies {
		l.out = strconv.AppendInt(append(l.out, "put 0 0 600 "...), int64(len(body)), 10)
		l.out = append(append(append(l.out, "\r\n"...), body...), "\r\n"...)
	}
	if _, err := l.connection.Write(l.out); err != nil {
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
		line, err := l.reader.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		words := strings.Fields(string(line))
		if len(words) != 3 || words[0] != "RESERVED" {
			continue
		}
		id, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return nil, err
		}
		size, err := strconv.Atoi(words[2])
		if err != nil {
			return nil, err
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
	l.out = l.out[:0]
	for _, id := range l.ids {
		l.out = strconv.AppendUint(append(l.out, "delete "...), id, 10)
		l.out = append(l.out, "\r\n"...)
	}
	if _, err := l.connection.Write(l.out); err != nil {
		return err
	}
	return l.expect("DELETED", len(l.ids))
}
