package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/spooksystems/gateway/integration/bench/mqttload"
)

// warm is how long an MQTT load runs before it is counted.
const warm = 300 * time.Millisecond

// mqttRelay compares ways to reach one mosquitto.
func mqttRelay(l *lab, o options) (*table, error) {
	t := &table{title: "MQTT relay", columns: []string{"direct", "haproxy", "spookgw"}}
	server, err := l.mosquitto()
	if err != nil {
		return t, err
	}
	haproxy, err := l.haproxy("tcp", server.addr)
	if err != nil {
		return t, err
	}
	gateway, err := l.spookgw("mqtt", "tcp://"+server.addr)
	if err != nil {
		return t, err
	}
	direct, viaHaproxy, own := contender{"direct", nil, server.addr}, contender{"haproxy", haproxy, haproxy.addr}, contender{"spookgw", gateway, gateway.addr}

	sixty := bytes.Repeat([]byte("x"), 64)
	unmapped := mqttload.Job{
		Topics:  func(p, _ int) string { return "bench/" + strconv.Itoa(p) },
		Filter:  func(p int) string { return "bench/" + strconv.Itoa(p) },
		Payload: func(int, int) []byte { return sixty },
	}
	for _, load := range []struct {
		name                            string
		publishers, subscribers, window int
		qos                             byte
		mark                            float64
	}{
		{"QoS 0, 8 pairs, 64 in flight", 8, 1, 64, 0, 1},
		{"QoS 1, 8 pairs, 64 in flight", 8, 1, 64, 1, 1},
		{"QoS 1, 1 pair, one at a time", 1, 1, 1, 1, 0.8},
		{"QoS 0, 1 to 16, 64 in flight", 1, 16, 64, 0, 1},
	} {
		job := unmapped
		job.Publishers, job.Subscribers, job.Window, job.QoS = load.publishers, load.subscribers, load.window, load.qos
		f, err := compare(o.rounds, []contender{direct, viaHaproxy, own}, mqtt(l, o, job))
		if err != nil {
			return t, fmt.Errorf("%s: %w", load.name, err)
		}
		rate, cpu := f.rows(t, load.name, "msg/s")
		r := f.ratio("spookgw", "haproxy")
		rate.mark, rate.verdict = fmt.Sprintf("%.2f of haproxy, at least %g", r, load.mark), atLeast(r, load.mark)
		c := ratio(f.micros("spookgw"), f.micros("haproxy"))
		cpu.mark = fmt.Sprintf("%.2f of haproxy, at most %g", c, 1/load.mark)
		cpu.verdict, cpu.gates = atMost(c, 1/load.mark), true
	}

	// The direct pair keeps to topics that are not mapped: the gateway hears what is published
	// behind its back as well, and would still be at it when its own turn comes.
	mapped := mqttload.Job{Publishers: 1, Subscribers: 1, Window: 64, QoS: 1, Spread: 64, Payload: reading}
	f, err := compare(o.rounds, []contender{direct, own}, func(c contender) (sample, error) {
		root := "sensors/bench/"
		if c.proc == nil {
			root = "unmapped/bench/"
		}
		job := mapped
		job.Topics = func(_, n int) string { return root + strconv.Itoa(n) }
		job.Filter = func(int) string { return root + "+" }
		return mqtt(l, o, job)(c)
	})
	if err != nil {
		return t, fmt.Errorf("mapped: %w", err)
	}
	rate, _ := f.rows(t, "QoS 1 mapped, 1 pair, 64 in flight", "msg/s")
	rate.mark = "durable each: reported"
	return t, nil
}

// reading is a small JSON document that differs from message to message.
func reading(_, n int) []byte { return []byte(`{"value":` + strconv.Itoa(n) + `}`) }

func mqtt(l *lab, o options, job mqttload.Job) func(contender) (sample, error) {
	return func(c contender) (sample, error) {
		var used time.Duration
		job := job
		job.Addr, job.Warm, job.Duration = c.addr, warm, o.length
		if c.proc != nil {
			job.Begin = func() { used = c.proc.cpu() }
			job.End = func() { used = c.proc.cpu() - used }
		}
		f, err := mqttload.Run(l.ctx, job)
		if err != nil {
			return sample{}, err
		}
		return sample{rate: f.Rate(), cpu: used / time.Duration(f.Operations())}, nil
	}
}
