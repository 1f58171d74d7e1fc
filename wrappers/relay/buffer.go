package relay

import "sync"

// Buffers come in classes: small for talk, large for bulk and for frames a Handler wants whole.
// They are held only while there are bytes in them, so an idle session has none (or a tiny one, over TLS).
const (
	tinyBuffer  = 4 << 10 // what a session keeps that can't wait without one
	smallBuffer = 16 << 10
	largeBuffer = 64 << 10
)

var tinyPool = sync.Pool{New: func() any { return new([tinyBuffer]byte) }}
var smallPool = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
var largePool = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

func getBuffer(size int) []byte {
	switch {
	case size <= tinyBuffer:
		return tinyPool.Get().(*[tinyBuffer]byte)[:]
	case size <= smallBuffer:
		return smallPool.Get().(*[smallBuffer]byte)[:]
	case size <= largeBuffer:
		return largePool.Get().(*[largeBuffer]byte)[:]
	}
	return make([]byte, size)
}

// putBuffer takes back what getBuffer gave; larger ones are left to the collector.
func putBuffer(b []byte) {
	switch cap(b) {
	case tinyBuffer:
		tinyPool.Put((*[tinyBuffer]byte)(b[:tinyBuffer]))
	case smallBuffer:
		smallPool.Put((*[smallBuffer]byte)(b[:smallBuffer]))
	case largeBuffer:
		largePool.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
}
