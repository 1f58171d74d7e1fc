package virtual

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/spooksystems/gateway/wrappers/relay"
)

// An inbox reads a client's messages (protocol, section 55.7): a type, a length, a body.
type inbox struct {
	window *relay.Window
	most   int // bytes of a body
}

var errLength = errors.New("invalid message length")

// An oversized message is longer than is taken.
type oversized struct{ length int }

func (e *oversized) Error() string {
	return fmt.Sprintf("a message of %d bytes is longer than this server takes", e.length)
}

// next gives a message's type and its body, which is valid until the next call.
func (b *inbox) next() (typ byte, body []byte, err error) {
	head, err := b.window.Next(5)
	if err != nil {
		return 0, nil, err
	}
	typ = head[0]
	n := int(int32(binary.BigEndian.Uint32(head[1:]))) - 4
	switch {
	case n < 0:
		return 0, nil, errLength
	case n > b.most:
		return 0, nil, &oversized{n}
	}
	body, err = b.window.Next(n)
	return typ, body, err
}

// receive gives the next message. What is in it is valid until the next call.
func (b *inbox) receive() (pgproto3.FrontendMessage, error) {
	typ, body, err := b.next()
	if err != nil {
		return nil, err
	}
	m := messageOf(typ)
	if m == nil {
		return nil, fmt.Errorf("unknown message type %q", typ)
	}
	return m, m.Decode(body)
}

// messageOf gives an empty message of a type, nil if there is none of that type behind the logging on.
func messageOf(typ byte) pgproto3.FrontendMessage {
	switch typ {
	case 'B':
		return &pgproto3.Bind{}
	case 'C':
		return &pgproto3.Close{}
	case 'D':
		return &pgproto3.Describe{}
	case 'E':
		return &pgproto3.Execute{}
	case 'F':
		return &pgproto3.FunctionCall{}
	case 'f':
		return &pgproto3.CopyFail{}
	case 'd':
		return &pgproto3.CopyData{}
	case 'c':
		return &pgproto3.CopyDone{}
	case 'H':
		return &pgproto3.Flush{}
	case 'P':
		return &pgproto3.Parse{}
	case 'Q':
		return &pgproto3.Query{}
	case 'S':
		return &pgproto3.Sync{}
	case 'X':
		return &pgproto3.Terminate{}
	}
	return nil
}

// sasl reads one of a client's messages while it logs on.
func (b *inbox) sasl(m pgproto3.FrontendMessage) error {
	typ, body, err := b.next()
	if err != nil {
		return err
	}
	if typ != 'p' {
		return errors.New("expected SASL response")
	}
	return m.Decode(body)
}
