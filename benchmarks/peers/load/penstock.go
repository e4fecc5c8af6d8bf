package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// The native protocol of docs/wire.md, as much of it as a load needs.
type penstock struct{ address string }

type penstockLink struct {
	connection net.Conn
	reader     *bufio.Reader
	queue      uint32
	receipts   []byte
	out        []byte
}

const (
	verbHello, verbOpen, verbSend, verbSendBatch, verbReceive, verbConfirm = 1, 2, 3, 4, 5, 6

	messageHead, receiptSize = 48, 24
)

func (d *penstock) open() (*penstockLink, error) {
	connection, err := net.Dial("tcp", d.address)
	if err != nil {
		return nil, err
	}
	link := &penstockLink{connection: connection, reader: bufio.NewReaderSize(connection, 1<<18)}
	hello := append([]byte("PNST\x01\x00\x00\x00"), make([]byte, 8)...)
	if _, err = link.ask(verbHello, hello); err != nil {
		return nil, err
	}
	answer, err := link.ask(verbOpen, append([]byte{1, 0, 0, 0}, "bench"...))
	if err != nil {
		return nil, err
	}
	link.queue = binary.LittleEndian.Uint32(answer)
	return link, nil
}

func (l *penstockLink) ask(verb byte, payload []byte) ([]byte, error) {
	l.begin(verb)
	l.out = append(l.out, payload...)
	return l.answer()
}

// begin starts a frame in the buffer that the link keeps; what it asks is appended there, once.
func (l *penstockLink) begin(verb byte) {
	l.out = append(l.out[:0], 0, 0, 0, 0, verb, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

func (l *penstockLink) answer() ([]byte, error) {
	binary.LittleEndian.PutUint32(l.out, uint32(len(l.out)-4))
	if _, err := l.connection.Write(l.out); err != nil {
		return nil, err
	}
	head := make([]byte, 16)
	if _, err := io.ReadFull(l.reader, head); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.LittleEndian.Uint32(head)-12)
	if _, err := io.ReadFull(l.reader, answer); err != nil {
		return nil, err
	}
	if status := binary.LittleEndian.Uint16(head[6:]); status != 0 {
		return nil, fmt.Errorf("verb %d was answered with %d: %s", l.out[4], status, answer[4:])
	}
	return answer, nil
}

func (d *penstock) prepare() error {
	_, err := d.open()
	return err
}
func (d *penstock) producer(int) (producer, error) { return d.open() }
func (d *penstock) consumer(int) (consumer, error) { return d.open() }

func (l *penstockLink) send(bodies [][]byte) error {
	l.begin(verbSend)
	// Durability 1: acknowledged once it is on disk. The kernel level is asked for with 0.
	l.out = binary.LittleEndian.AppendUint32(l.out, l.queue)
	l.out = append(l.out, penstockDurability, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	if len(bodies) > 1 {
		l.out[4] = verbSendBatch
		l.out = binary.LittleEndian.AppendUint32(l.out, uint32(len(bodies)))
		l.out = append(l.out, 0, 0, 0, 0)
		for _, body := range bodies {
			l.out = binary.LittleEndian.AppendUint32(l.out, uint32(len(body)))
		}
	}
	for _, body := range bodies {
		l.out = append(l.out, body...)
	}
	_, err := l.answer()
	return err
}

func (l *penstockLink) receive(count int) ([][]byte, error) {
	ask := make([]byte, 0, 24)
	for _, value := range []uint32{l.queue, 0, uint32(count), 1 << 22, 60000, 100} {
		ask = binary.LittleEndian.AppendUint32(ask, value)
	}
	answer, err := l.ask(verbReceive, ask)
	if err != nil {
		return nil, err
	}
	found := make([][]byte, 0, count)
	l.receipts = l.receipts[:0]
	at := answer[8:]
	for left := binary.LittleEndian.Uint32(answer); left > 0; left-- {
		ext := binary.LittleEndian.Uint32(at[36:])
		size := binary.LittleEndian.Uint32(at[40:])
		l.receipts = append(l.receipts, at[:receiptSize]...)
		found = append(found, at[messageHead+ext:messageHead+ext+size])
		at = at[messageHead+ext+size:]
	}
	return found, nil
}

func (l *penstockLink) confirm() error {
	payload := binary.LittleEndian.AppendUint32(nil, uint32(len(l.receipts)/receiptSize))
	answer, err := l.ask(verbConfirm, append(payload, l.receipts...))
	if err != nil {
		return err
	}
	for _, verdict := range answer[4:] {
		if verdict != 0 {
			return fmt.Errorf("a receipt was refused: %d", verdict)
		}
	}
	return nil
}
