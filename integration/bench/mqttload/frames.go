package mqttload

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Packet types, in the high nibble of the first byte (MQTT 3.1.1, section 2.2.1).
const (
	connect   = 0x10
	connack   = 0x20
	publish   = 0x30
	puback    = 0x40
	subscribe = 0x82 // with its fixed flags
	suback    = 0x90
)

// maxFrame bounds what a frame may announce, in bytes: far above what this package sends.
const maxFrame = 1 << 20

var errFrame = errors.New("not what an MQTT 3.1.1 server sends")

func appendString(dst []byte, s string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

func appendFrame(dst []byte, first byte, body []byte) []byte {
	dst = append(dst, first)
	n := len(body)
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	dst = append(dst, byte(n))
	return append(dst, body...)
}

func appendConnect(dst []byte, clientID string) []byte {
	body := appendString(nil, "MQTT")
	body = append(body, 4, 0x02, 0, 0) // level 4, clean session, no keep alive
	return appendFrame(dst, connect, appendString(body, clientID))
}

func appendSubscribe(dst []byte, topic string, qos byte) []byte {
	body := append(appendString([]byte{0, 1}, topic), qos)
	return appendFrame(dst, subscribe, body)
}

func appendPublish(dst []byte, topic string, qos byte, id uint16, payload []byte) []byte {
	body := make([]byte, 0, 128)
	body = appendString(body, topic)
	if qos > 0 {
		body = binary.BigEndian.AppendUint16(body, id)
	}
	return appendFrame(dst, publish|qos<<1, append(body, payload...))
}

func appendPuback(dst []byte, id uint16) []byte {
	return append(dst, puback, 2, byte(id>>8), byte(id))
}

// A frame is one packet. The body is valid until the next is read.
type frame struct {
	first byte
	body  []byte
}

// id gives a PUBACK's packet id, or that of a PUBLISH with QoS above 0.
func (f frame) id() (uint16, error) {
	at := 0
	if f.first&0xf0 == publish {
		if len(f.body) < 2 {
			return 0, errFrame
		}
		at = 2 + int(binary.BigEndian.Uint16(f.body))
	}
	if len(f.body) < at+2 {
		return 0, errFrame
	}
	return binary.BigEndian.Uint16(f.body[at:]), nil
}

type frameReader struct {
	r   *bufio.Reader
	buf []byte
}

func newFrameReader(r io.Reader) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// drained tells whether the next read would have to wait for the network.
func (fr *frameReader) drained() bool { return fr.r.Buffered() == 0 }

func (fr *frameReader) next() (frame, error) {
	first, err := fr.r.ReadByte()
	if err != nil {
		return frame{}, err
	}
	n, shift := 0, 0
	for {
		b, err := fr.r.ReadByte()
		if err != nil {
			return frame{}, err
		}
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift += 7; shift > 21 {
			return frame{}, errFrame
		}
	}
	if n > maxFrame {
		return frame{}, errFrame
	}
	if cap(fr.buf) < n {
		fr.buf = make([]byte, n)
	}
	body := fr.buf[:n]
	if _, err := io.ReadFull(fr.r, body); err != nil {
		return frame{}, err
	}
	return frame{first, body}, nil
}

// A Conn is a connected client.
type Conn struct {
	net.Conn
	frames *frameReader
}

// handshake is how long a server may take to answer CONNECT and SUBSCRIBE.
const handshake = 10 * time.Second

// Dial connects as clientID, and subscribes to topic unless that is "".
func Dial(addr, clientID, topic string, qos byte) (*Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, handshake)
	if err != nil {
		return nil, err
	}
	c := &Conn{Conn: conn, frames: newFrameReader(conn)}
	if err := c.greet(clientID, topic, qos); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) greet(clientID, topic string, qos byte) error {
	if err := c.SetDeadline(time.Now().Add(handshake)); err != nil {
		return err
	}
	if _, err := c.Write(appendConnect(nil, clientID)); err != nil {
		return err
	}
	f, err := c.frames.next()
	if err != nil {
		return fmt.Errorf("CONNACK: %w", err)
	}
	if f.first != connack || len(f.body) != 2 || f.body[1] != 0 {
		return fmt.Errorf("CONNACK: got % x % x", f.first, f.body)
	}
	if topic != "" {
		if _, err := c.Write(appendSubscribe(nil, topic, qos)); err != nil {
			return err
		}
		f, err := c.frames.next()
		if err != nil {
			return fmt.Errorf("SUBACK: %w", err)
		}
		if f.first != suback || len(f.body) != 3 || f.body[2] > 2 {
			return fmt.Errorf("SUBACK: got % x % x", f.first, f.body)
		}
	}
	return c.SetDeadline(time.Time{})
}
