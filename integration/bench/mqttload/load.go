// Package mqttload loads an MQTT server: publishers that keep a window of messages in flight, and
// subscribers that receive them. It speaks MQTT 3.1.1 in raw frames, so that it costs little of the
// machine it shares with what is measured.
package mqttload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Job is one load.
type Job struct {
	Addr        string
	Publishers  int
	Subscribers int // to each publisher; 0: only acknowledgements count
	QoS         byte
	Window      int // messages of one publisher in flight: not yet acknowledged, or not yet with its slowest subscriber
	// Topics gives the nth topic of a publisher; a publisher takes them in turn, and its
	// subscribers take Filter.
	Topics func(publisher, n int) string
	Spread int // topics of one publisher; default 1
	Filter func(publisher int) string
	// Payload gives the nth payload of a publisher.
	Payload  func(publisher, n int) []byte
	Warm     time.Duration // before counting begins
	Duration time.Duration // counted
	// Begin and End are called when counting begins and ends: to read a process's CPU time.
	Begin, End func()
}

// Figures are what happened while counting.
type Figures struct {
	Published int64 // acknowledged, with QoS 0 sent
	Delivered int64 // to all subscribers together
	Took      time.Duration
}

// Rate gives deliveries a second, or without subscribers acknowledgements a second.
func (f Figures) Rate() float64 { return float64(f.Operations()) / f.Took.Seconds() }

// Operations gives what Rate counts.
func (f Figures) Operations() int64 {
	if f.Delivered > 0 {
		return f.Delivered
	}
	return f.Published
}

// A lane is one publisher with its subscribers.
type lane struct {
	mu        sync.Mutex
	moved     sync.Cond
	sent      int64
	acked     int64   // with QoS 0: like sent
	received  []int64 // by subscriber
	closed    bool
	delivered *atomic.Int64
	published *atomic.Int64
}

// free waits until the window has room and gives how much; 0 when the job has ended.
func (l *lane) free(window int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if l.closed {
			return 0
		}
		done := l.acked
		for _, n := range l.received {
			done = min(done, n)
		}
		if room := int64(window) - (l.sent - done); room > 0 {
			return int(room)
		}
		l.moved.Wait()
	}
}

func (l *lane) count(f func()) {
	l.mu.Lock()
	f()
	l.mu.Unlock()
	l.moved.Signal()
}

// Run carries out a job. An error is a server's that broke off, refused or stalled.
func Run(ctx context.Context, job Job) (Figures, error) {
	job.Spread = max(job.Spread, 1)
	var conns []*Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	dial := func(role string, n int, topic string) (*Conn, error) {
		c, err := Dial(job.Addr, "load-"+role+strconv.Itoa(n)+"-"+run, topic, job.QoS)
		if err == nil {
			conns = append(conns, c)
		}
		return c, err
	}

	var delivered, published atomic.Int64
	var group sync.WaitGroup
	failed := make(chan error, 1)
	fail := func(err error) {
		if err != nil && !errors.Is(err, net.ErrClosed) {
			select {
			case failed <- err:
			default:
			}
		}
	}
	var lanes []*lane
	var starts []func()
	for p := range job.Publishers {
		l := &lane{received: make([]int64, job.Subscribers), delivered: &delivered, published: &published}
		l.moved.L = &l.mu
		lanes = append(lanes, l)
		for s := range job.Subscribers {
			c, err := dial("s", p*job.Subscribers+s, job.Filter(p))
			if err != nil {
				return Figures{}, fmt.Errorf("subscriber: %w", err)
			}
			starts = append(starts, func() { fail(l.receive(c, s)) })
		}
		c, err := dial("p", p, "")
		if err != nil {
			return Figures{}, fmt.Errorf("publisher: %w", err)
		}
		if job.QoS > 0 {
			starts = append(starts, func() { fail(l.acknowledged(c)) })
		}
		starts = append(starts, func() { fail(l.publish(c, job, p)) })
	}
	for _, start := range starts {
		group.Go(start)
	}

	figures, err := measure(ctx, job, failed, &delivered, &published)
	for _, l := range lanes {
		l.count(func() { l.closed = true })
	}
	for _, c := range conns {
		c.Close()
	}
	group.Wait()
	return figures, err
}

func measure(ctx context.Context, job Job, failed <-chan error, delivered, published *atomic.Int64) (Figures, error) {
	wait := func(d time.Duration) error {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case err := <-failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := wait(job.Warm); err != nil {
		return Figures{}, err
	}
	if job.Begin != nil {
		job.Begin()
	}
	began, d0, p0 := time.Now(), delivered.Load(), published.Load()
	err := wait(job.Duration)
	f := Figures{Published: published.Load() - p0, Delivered: delivered.Load() - d0, Took: time.Since(began)}
	if job.End != nil {
		job.End()
	}
	if err == nil && f.Operations() == 0 {
		err = errors.New("the server stalled: nothing came through")
	}
	return f, err
}

func (l *lane) publish(c *Conn, job Job, publisher int) error {
	var out []byte
	n := 0
	for {
		room := l.free(job.Window)
		if room == 0 {
			return nil
		}
		out = out[:0]
		for range room {
			out = appendPublish(out, job.Topics(publisher, n%job.Spread), job.QoS, uint16(n%0xffff+1), job.Payload(publisher, n))
			n++
		}
		l.count(func() {
			l.sent += int64(room)
			if job.QoS == 0 {
				l.acked = l.sent
			}
		})
		if _, err := c.Write(out); err != nil {
			return err
		}
		if job.QoS == 0 {
			l.published.Add(int64(room))
		}
	}
}

// acknowledged counts PUBACKs.
func (l *lane) acknowledged(c *Conn) error {
	acks := int64(0)
	for {
		f, err := c.frames.next()
		if err != nil {
			return err
		}
		if f.first != puback {
			return fmt.Errorf("publisher got a packet % x: %w", f.first, errFrame)
		}
		acks++
		if c.frames.drained() {
			l.published.Add(acks)
			l.count(func() { l.acked += acks })
			acks = 0
		}
	}
}

// receive counts messages, and acknowledges them.
func (l *lane) receive(c *Conn, subscriber int) error {
	var out []byte
	got := int64(0)
	for {
		f, err := c.frames.next()
		if err != nil {
			return err
		}
		if f.first&0xf0 != publish {
			return fmt.Errorf("subscriber got a packet % x: %w", f.first, errFrame)
		}
		if f.first&0x01 != 0 {
			continue // retained: from before
		}
		got++
		if f.first&0x06 != 0 {
			id, err := f.id()
			if err != nil {
				return err
			}
			out = appendPuback(out, id)
		}
		if !c.frames.drained() {
			continue
		}
		if len(out) > 0 {
			if _, err := c.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
		l.delivered.Add(got)
		l.count(func() { l.received[subscriber] += got })
		got = 0
	}
}
