package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// ElasticMQ over the JSON form of SQS; at most ten messages a request, as SQS has it.
type elastic struct{ address string }

type elasticLink struct {
	address string
	client  http.Client
	handles []string
}

const elasticBatch = 10

func (d *elastic) open() (*elasticLink, error) {
	return &elasticLink{address: d.address, client: http.Client{Transport: &http.Transport{}}}, nil
}

func (d *elastic) prepare() error                 { return nil }
func (d *elastic) producer(int) (producer, error) { return d.open() }
func (d *elastic) consumer(int) (consumer, error) { return d.open() }

func (l *elasticLink) ask(action string, fields map[string]any, answer any) error {
	fields["QueueUrl"] = "http://localhost/000000000000/bench"
	body, _ := json.Marshal(fields)
	request, _ := http.NewRequest("POST", "http://"+l.address+"/", bytes.NewReader(body))
	request.Header.Set("X-Amz-Target", "AmazonSQS."+action)
	request.Header.Set("Content-Type", "application/x-amz-json-1.0")
	request.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=x/20260101/elasticmq/sqs/"+
		"aws4_request, SignedHeaders=host, Signature=x")
	response, err := l.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != 200 {
		err = fmt.Errorf("%s was answered with %d: %.100s", action, response.StatusCode, text)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(text, answer)
	}
	return err
}

func (l *elasticLink) send(bodies [][]byte) error {
	if len(bodies) == 1 {
		return l.ask("SendMessage", map[string]any{"MessageBody": string(bodies[0])}, nil)
	}
	for len(bodies) > 0 {
		part := bodies[:min(elasticBatch, len(bodies))]
		bodies = bodies[len(part):]
		entries := make([]map[string]any, len(part))
		for number, body := range part {
			entries[number] = map[string]any{"Id": strconv.Itoa(number), "MessageBody": string(body)}
		}
		if err := l.ask("SendMessageBatch", map[string]any{"Entries": entries}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (l *elasticLink) receive(count int) ([][]byte, error) {
	var answer struct {
		Messages []struct{ Body, ReceiptHandle string }
	}
	l.handles = l.handles[:0]
	err := l.ask("ReceiveMessage", map[string]any{"MaxNumberOfMessages": min(elasticBatch, count),
		"WaitTimeSeconds": 1}, &answer)
	bodies := make([][]byte, 0, len(answer.Messages))
	for _, message := range answer.Messages {
		bodies = append(bodies, []byte(message.Body))
		l.handles = append(l.handles, message.ReceiptHandle)
	}
	return bodies, err
}

func (l *elasticLink) confirm() error {
	entries := make([]map[string]any, len(l.handles))
	for number, handle := range l.handles {
		entries[number] = map[string]any{"Id": strconv.Itoa(number), "ReceiptHandle": handle}
	}
	return l.ask("DeleteMessageBatch", map[string]any{"Entries": entries}, nil)
}
