package sql

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// markPrefix is that of the gateway's own messages in the server's log (pg_logical_emit_message).
const markPrefix = "spookgw"

// marks tell when the feed has come as far as something that is committed at the server: a message
// is written into the log, and whoever waits goes on when the feed has shown it. One message is on
// its way at a time, and serves all that asked while the last one was.
type marks struct {
	run  string // of this process
	wake chan struct{}

	mu      sync.Mutex
	next    uint64 // newest mark that was written, or is being written
	passed  uint64
	waiting map[uint64]chan struct{}
	down    chan struct{} // closed while no feed stands
}

func newMarks(run string) *marks {
	down := make(chan struct{})
	close(down)
	return &marks{run: run, wake: make(chan struct{}, 1), waiting: map[uint64]chan struct{}{}, down: down}
}

// stands tells that a feed stands, or none.
func (m *marks) stands(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.down:
		if yes {
			m.down = make(chan struct{})
		}
	default:
		if !yes {
			close(m.down)
		}
	}
}

// await waits until the feed has shown all that is committed now; false: it did not, in time or at all.
func (m *marks) await(ctx context.Context, atMost time.Duration) bool {
	m.mu.Lock()
	n := m.next + 1
	c := m.waiting[n]
	if c == nil {
		c = make(chan struct{})
		m.waiting[n] = c
	}
	down := m.down
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-c:
		return true
	case <-down:
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// take gives the next mark to write, 0 if nobody waits for one.
func (m *marks) take() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting[m.next+1] == nil {
		return 0
	}
	m.next++
	return m.next
}

const markKind = "mark:"

// content is the message of a mark.
func (m *marks) content(n uint64) string { return markKind + m.run + ":" + strconv.FormatUint(n, 10) }

// read gives the mark that a message is; 0: none of this process.
func (m *marks) read(content string) uint64 {
	rest, ok := strings.CutPrefix(content, markKind+m.run+":")
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(rest, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// pass lets go who waits for a mark up to n.
func (m *marks) pass(n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ; m.passed < n; m.passed++ {
		if c := m.waiting[m.passed+1]; c != nil {
			close(c)
			delete(m.waiting, m.passed+1)
		}
	}
}

// write writes marks until ctx ends.
func (d *database) writeMarks(ctx context.Context) {
	m := d.marks
	var conn *pgconn.PgConn
	defer func() {
		if conn != nil {
			closeConn(conn)
		}
	}()
	for {
		select {
		case <-m.wake:
		case <-ctx.Done():
			return
		}
		for n := m.take(); n != 0; n = m.take() {
			var err error
			if conn == nil {
				conn, err = d.w.connect(ctx, "marks", nil)
			}
			if err == nil {
				_, err = query(ctx, conn, "SELECT pg_logical_emit_message(true, "+quoteLiteral(markPrefix)+", "+quoteLiteral(m.content(n))+")")
			}
			if err == nil {
				continue
			}
			if ctx.Err() != nil {
				return
			}
			// Who waits for it goes on when its time is over; the next one is served anew.
			d.log.Warn("marks", "err", err)
			if conn != nil {
				closeConn(conn)
				conn = nil
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}
}
