package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"time"
)

// redis syncs its append-only file before it answers.
func (l *lab) redis() (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	dir, err := l.place("redis", "redis.conf", fmt.Sprintf(`bind %s
port %s
save ""
appendonly yes
appendfsync always
loglevel warning
`, host, port))
	if err != nil {
		return nil, err
	}
	return l.keep(start(l.ctx, "redis", addr, dir, listens(addr), "redis-server", "redis.conf"))
}

// dialRedis gives a writer that sets the keys of one commit in one transaction, over a connection
// of its own (redis.io/docs/latest/develop/reference/protocol-spec).
func dialRedis(addr string) (storeWriter, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &redisWriter{conn: conn, in: bufio.NewReader(conn)}, nil
}

type redisWriter struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
}

func (w *redisWriter) Close() error { return w.conn.Close() }

func (w *redisWriter) Write(sets []keyValue) error {
	w.out = appendCommand(w.out[:0], []byte("MULTI"))
	for _, s := range sets {
		w.out = appendCommand(w.out, []byte("SET"), s.key, s.value)
	}
	w.out = appendCommand(w.out, []byte("EXEC"))
	if _, err := w.conn.Write(w.out); err != nil {
		return err
	}
	// MULTI and each SET are answered by a line, EXEC by an array of one for each SET.
	for range 1 + len(sets) {
		if err := w.line('+'); err != nil {
			return err
		}
	}
	if err := w.line('*'); err != nil {
		return err
	}
	for range sets {
		if err := w.line('+'); err != nil {
			return err
		}
	}
	return nil
}

func (w *redisWriter) line(kind byte) error {
	line, err := w.in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if line[0] != kind {
		return fmt.Errorf("redis answered %q", bytes.TrimSpace(line))
	}
	return nil
}

func appendCommand(dst []byte, words ...[]byte) []byte {
	dst = append(strconv.AppendInt(append(dst, '*'), int64(len(words)), 10), "\r\n"...)
	for _, w := range words {
		dst = append(strconv.AppendInt(append(dst, '$'), int64(len(w)), 10), "\r\n"...)
		dst = append(append(dst, w...), "\r\n"...)
	}
	return dst
}
