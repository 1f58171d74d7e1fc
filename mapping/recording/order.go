package recording

import (
	"container/heap"
	"errors"
	"io"
)

// A recording has its operations in the order in which they ended. An Ordered gives them in the order in which they came, as far as
// those that overlapped are within its window of each other.
type Ordered struct {
	r     *Reader
	held  opHeap
	bytes int
	most  int // bytes
	line  int
	err   error
}

// The window: so many operations, and so many bytes of payloads.
const (
	windowOperations = 1024
	windowBytes      = 64 << 20
)

// InOrder reads the rest of r by time.
func InOrder(r *Reader) *Ordered { return &Ordered{r: r, most: windowBytes} }

// Line is the number of the line of what Next gave last.
func (o *Ordered) Line() int { return o.line }

// Next is Reader.Next, by time. An error comes after all that was read before it.
func (o *Ordered) Next() (Operation, error) {
	for o.err == nil && len(o.held) < windowOperations && (o.bytes < o.most || len(o.held) == 0) {
		op, err := o.r.Next()
		if err != nil {
			o.err = err
			break
		}
		heap.Push(&o.held, heldOp{op, o.r.Line()})
		o.bytes += op.held()
	}
	if len(o.held) > 0 {
		h := heap.Pop(&o.held).(heldOp)
		o.bytes -= h.op.held()
		o.line = h.line
		return h.op, nil
	}
	if !errors.Is(o.err, io.EOF) {
		o.line = o.r.Line()
	}
	return Operation{}, o.err
}

// held is about what an operation takes in memory.
func (o *Operation) held() int {
	n := 512
	if o.Text != nil {
		n += len(*o.Text)
	}
	if o.Base64 != nil {
		n += len(*o.Base64)
	}
	for i := range o.Parts {
		n += o.Parts[i].held()
	}
	return n
}

type heldOp struct {
	op   Operation
	line int
}

// opHeap has the earliest first; of one time the one that stands first.
type opHeap []heldOp

func (h opHeap) Len() int { return len(h) }
func (h opHeap) Less(i, k int) bool {
	if c := h[i].op.Time.Compare(h[k].op.Time); c != 0 {
		return c < 0
	}
	return h[i].line < h[k].line
}
func (h opHeap) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h *opHeap) Push(x any)   { *h = append(*h, x.(heldOp)) }
func (h *opHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = heldOp{}
	*h = (*h)[:last]
	return x
}
