package main

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/spooksystems/gateway/integration/bench/mqttload"
)

const (
	durableWindow = 20 // publishes in flight, and writers to raw pebble
	// 5,000 acknowledgements a second where raw pebble manages 10,000: half of a slower disk.
	durableMark = 5000.0
	durableHalf = 0.5
)

// durable compares one publisher's durable acknowledgements from a virtual broker with what
// raw pebble syncs on the same disk for as many writers.
func durable(l *lab, o options) (*table, error) {
	t := &table{title: "Virtual MQTT, durable acknowledgements", columns: []string{"raw pebble", "spookgw"}}
	gateway, err := l.spookgw("mqtt", "")
	if err != nil {
		return t, err
	}
	contenders := []contender{{name: "raw pebble"}, {"spookgw", gateway, gateway.addr}}
	for _, load := range []struct {
		name   string
		topics int
	}{
		{"1 publisher, QoS 1, 20 in flight, 100 topics", 100},
		{"the same on one topic", 1},
	} {
		job := mqttload.Job{
			Publishers: 1, QoS: 1, Window: durableWindow, Spread: load.topics, Payload: reading,
			Topics: func(_, n int) string { return "sensors/bench/s" + strconv.Itoa(n) },
		}
		publish := mqtt(l, o, job)
		f, err := compare(o.rounds, contenders, func(c contender) (sample, error) {
			if c.proc == nil {
				rate, err := rawPebble(l, o, load.topics)
				return sample{rate: rate}, err
			}
			return publish(c)
		})
		if err != nil {
			return t, fmt.Errorf("%s: %w", load.name, err)
		}
		r := row{
			name:  load.name,
			cells: []string{fmt.Sprintf("%.0f /s", f.rate("raw pebble")), fmt.Sprintf("%.0f /s, %.2f", f.rate("spookgw"), f.ratio("spookgw", "raw pebble"))},
			mark:  "reported",
		}
		if load.topics > 1 {
			r.mark = fmt.Sprintf("at least %.0f /s, or half of a slower disk", durableMark)
			r.verdict, r.gates = atLeast(f.rate("spookgw"), min(durableMark, durableHalf*f.rate("raw pebble"))), true
		}
		t.add(r)
		t.add(row{name: "  CPU µs each", cells: []string{"", fmt.Sprintf("%.1f", f.micros("spookgw"))}})
	}
	return t, nil
}

// rawPebble gives how many batches a second durableWindow writers sync, each of them as large
// as one commit of a one-field register: log entry, register, history, order.
func rawPebble(l *lab, o options, registers int) (float64, error) {
	db, err := pebble.Open(filepath.Join(l.dir, "raw-pebble-"+strconv.FormatInt(time.Now().UnixNano(), 36)), &pebble.Options{Logger: quiet{}})
	if err != nil {
		return 0, err
	}
	var seq, done atomic.Uint64
	var group sync.WaitGroup
	errs := make(chan error, durableWindow)
	began := time.Now()
	end := began.Add(o.length)
	for range durableWindow {
		group.Go(func() {
			entry, register, history, order := make([]byte, 213), make([]byte, 80), make([]byte, 216), make([]byte, 57)
			for time.Now().Before(end) {
				n := seq.Add(1)
				ordinal := binary.BigEndian.AppendUint64(nil, n)
				name := fmt.Sprintf("site/bench/s%d", n%uint64(registers))
				b := db.NewBatch()
				_ = b.Set(append([]byte("c"), ordinal...), entry, nil)
				_ = b.Set([]byte("r"+name), register, nil)
				_ = b.Set(append([]byte("h"+name), ordinal...), history, nil)
				_ = b.Set(append([]byte("o"), ordinal...), order, nil)
				if err := b.Commit(pebble.Sync); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
		})
	}
	group.Wait()
	rate := float64(done.Load()) / time.Since(began).Seconds()
	if err := db.Close(); err != nil {
		return 0, err
	}
	select {
	case err := <-errs:
		return 0, err
	default:
		return rate, nil
	}
}

// quiet drops what pebble says about its housekeeping.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("pebble: "+format, args...))
}
