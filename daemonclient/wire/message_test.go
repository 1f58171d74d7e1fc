package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReader(t *testing.T) {
	long := `{"jsonrpc":"2.0","method":"` + strings.Repeat("x", MaxMessage) + `"}`
	in := strings.Join([]string{
		`{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":1}}`,
		``,
		`garbage`,
		long,
		`{"jsonrpc":"2.0","method":"note"}`,
		`[{"jsonrpc":"2.0","id":1,"method":"a"}]`,
		`{"jsonrpc":"2.0","id":1.5,"method":"a"}`,
		`{"jsonrpc":"2.0","id":9007199254740993,"method":"a"}`,
		`{"jsonrpc":"1.0","id":1,"method":"a"}`,
		`{"jsonrpc":"2.0","id":1,"method":"a","params":[1]}`,
		`{"jsonrpc":"2.0","id":1,"Method":"a"}`,
		`{"jsonrpc":"2.0","id":7,"result":null}`,
		`{"jsonrpc":"2.0","id":7,"error":{"code":-32002,"message":"m","data":{"kind":"not_found","detail":"d"}}}`,
		`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m"}}`,
		`{"jsonrpc":"2.0","id":8,"result":1,"error":{"code":1,"message":"m"}}`,
		`{"jsonrpc":"2.0","id":9,"method":"cut`,
	}, "\n")
	want := []string{
		"call 1 a {\"x\":1}", "ErrSyntax", "ErrTooLong", "note note ", "ErrForm", "ErrForm", "ErrForm", "ErrForm", "ErrForm", "ErrForm",
		"result 7 null", "error 7 -32002 d", "error null -32700 ", "ErrForm", "cut",
	}
	for name, r := range map[string]io.Reader{"whole": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in))} {
		reader := NewReader(r, MaxDepth)
		for _, w := range want {
			m, err := reader.Next()
			if got := describe(m, err); got != w {
				t.Errorf("%s: got %q (%v), want %q", name, got, err, w)
			}
		}
	}
}

func describe(m Message, err error) string {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut"
	case errors.Is(err, ErrSyntax):
		return "ErrSyntax"
	case errors.Is(err, ErrForm):
		return "ErrForm"
	case errors.Is(err, ErrTooLong):
		return "ErrTooLong"
	case err != nil:
		return err.Error()
	case m.Method != "" && m.HasID:
		return fmt.Sprintf("call %d %s %s", m.ID, m.Method, m.Params)
	case m.Method != "":
		return fmt.Sprintf("note %s %s", m.Method, m.Params)
	case m.Err != nil:
		id, detail := "null", ""
		if m.HasID {
			id = fmt.Sprint(m.ID)
		}
		if m.Err.Data != nil {
			detail = m.Err.Data.Detail
		}
		return fmt.Sprintf("error %s %d %s", id, m.Err.Code, detail)
	}
	return fmt.Sprintf("result %d %s", m.ID, m.Result)
}

// A message longer than the limit costs no more memory than the limit.
func TestReaderIsBounded(t *testing.T) {
	allocs := testing.AllocsPerRun(1, func() {
		_, err := NewReader(io.LimitReader(zeros{}, 64<<20), MaxDepth).Next()
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
		}
	})
	if allocs > 100 {
		t.Errorf("got %v allocations", allocs)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestCallsComeBack(t *testing.T) {
	line, err := AppendCall(nil, 5, true, "m\n\"", map[string]any{"a": "<&>\u2028"})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(line, []byte("\n")) != 1 {
		t.Errorf("got %q, want one line", line)
	}
	m, err := NewReader(bytes.NewReader(line), MaxDepth).Next()
	if err != nil || m.ID != 5 || m.Method != "m\n\"" || string(m.Params) != `{"a":"<&>\u2028"}` {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := AppendCall(nil, 5, true, "m", strings.Repeat("x", MaxMessage)); !errors.Is(err, ErrTooLong) {
		t.Errorf("got %v, want ErrTooLong", err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":1}}` + "\n"))
	f.Add([]byte(`{"jsonrpc":"2.0","id":7,"error":{"code":-32002,"message":"m","data":{"kind":"x"}}}` + "\n"))
	f.Add([]byte(`{"jsonrpc":"2.0","id":7,"result":{"state":{"register":"a","value":{"$int":"9007199254740993"},"seen":[{"existence":true,"dots":["x"]}]}}}` + "\n"))
	f.Add([]byte(`{"jsonrpc":"2.0","method":"event","params":{"sub":1,"delta":{"cursor":"a.1","after":{"register":"x"},"changed":[{"field":"f"}]}}}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b), ReplyDepth)
		for {
			m, err := r.Next()
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return
			}
			if err != nil {
				continue
			}
			for _, raw := range [][]byte{m.Params, m.Result} {
				// None of these may panic, whatever they make of it.
				_, _ = ParseState(raw)
				_, _ = ParseDelta(raw)
				_, _ = ParseReceipt(raw)
				_, _ = ParseWrite(raw)
			}
		}
	})
}
