package mapping

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
)

// A charset is how a payload's characters are bytes.
type charset struct {
	name  string // as in IANA's registry, in lower case
	table *charmap.Charmap
	order binary.ByteOrder // UTF-16
}

const byteOrderMark = "\ufeff"

var charsets = map[string]*charset{
	"utf-8":        {name: "utf-8"},
	"utf-16":       {name: "utf-16", order: binary.LittleEndian}, // where no byte order mark says otherwise
	"utf-16le":     {name: "utf-16le", order: binary.LittleEndian},
	"utf-16be":     {name: "utf-16be", order: binary.BigEndian},
	"iso-8859-1":   {name: "iso-8859-1", table: charmap.ISO8859_1},
	"iso-8859-2":   {name: "iso-8859-2", table: charmap.ISO8859_2},
	"iso-8859-15":  {name: "iso-8859-15", table: charmap.ISO8859_15},
	"windows-1250": {name: "windows-1250", table: charmap.Windows1250},
	"windows-1251": {name: "windows-1251", table: charmap.Windows1251},
	"windows-1252": {name: "windows-1252", table: charmap.Windows1252},
}

var charsetAliases = map[string]string{"utf8": "utf-8", "us-ascii": "utf-8", "ascii": "utf-8", "latin1": "iso-8859-1", "iso8859-1": "iso-8859-1", "cp1252": "windows-1252", "utf16": "utf-16"}

// findCharset gives a charset by its name in any case; nil: it is not among those that are read.
func findCharset(name string) *charset {
	name = strings.ToLower(name)
	if a := charsetAliases[name]; a != "" {
		name = a
	}
	return charsets[name]
}

func charsetNames() []string {
	var names []string
	for n := range charsets {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// decode gives the text without its byte order mark, and that mark as it stood there. The error is for the peer.
func (c *charset) decode(raw []byte) (text, bom string, err error) {
	switch {
	case c.order != nil:
		return c.decode16(raw)
	case c.table != nil:
		out := make([]byte, 0, len(raw)+len(raw)/8)
		for i, b := range raw {
			r := c.table.DecodeByte(b)
			if r == utf8.RuneError {
				return "", "", refuse("byte %d (0x%02X) is no character of %s", i+1, b, c.name)
			}
			out = utf8.AppendRune(out, r)
		}
		return string(out), "", nil
	}
	if len(raw) >= 2 && (raw[0] == 0xff && raw[1] == 0xfe || raw[0] == 0xfe && raw[1] == 0xff) {
		return "", "", refuse(`the payload is not UTF-8 but UTF-16: the codec takes charset = "utf-16"`)
	}
	if !utf8.Valid(raw) {
		i := 0
		for i < len(raw) {
			r, n := utf8.DecodeRune(raw[i:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			i += n
		}
		return "", "", refuse("byte %d (0x%02X) is not UTF-8; the payload or the codec has to say which charset it is, of %s", i+1, raw[i], strings.Join(charsetNames(), ", "))
	}
	if rest, ok := bytes.CutPrefix(raw, []byte(byteOrderMark)); ok {
		return string(rest), byteOrderMark, nil
	}
	return string(raw), "", nil
}

func (c *charset) decode16(raw []byte) (text, bom string, err error) {
	if len(raw)%2 != 0 {
		return "", "", refuse("the payload has an odd number of bytes, which %s has not", c.name)
	}
	order := c.order
	if len(raw) >= 2 {
		switch first := binary.BigEndian.Uint16(raw); {
		case first == 0xfeff && (c.name == "utf-16" || order == binary.BigEndian):
			order, bom, raw = binary.BigEndian, string(raw[:2]), raw[2:]
		case first == 0xfffe && (c.name == "utf-16" || order == binary.LittleEndian):
			order, bom, raw = binary.LittleEndian, string(raw[:2]), raw[2:]
		}
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i += 2 {
		r := rune(order.Uint16(raw[i:]))
		if utf16.IsSurrogate(r) {
			second := rune(0)
			if i+4 <= len(raw) {
				second = rune(order.Uint16(raw[i+2:]))
			}
			if r = utf16.DecodeRune(r, second); r == utf8.RuneError {
				return "", "", refuse("half a character at byte %d: the payload is not %s", i+len(bom)+1, c.name)
			}
			i += 2
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out), bom, nil
}

// A lacking error tells of a character that a charset does not have. It is the write's to be refused for, not the
// mapping's: nothing comes back changed.
type lacking struct {
	char    rune
	charset string
}

func (e *lacking) Error() string { return fmt.Sprintf("%q can't be written in %s", e.char, e.charset) }

// encode is the way back, behind bom. The error says which character the charset lacks.
func (c *charset) encode(text, bom string) ([]byte, error) {
	switch {
	case c.order != nil:
		order := c.order
		if bom == "\xfe\xff" {
			order = binary.BigEndian
		}
		out := append(make([]byte, 0, 2+2*len(text)), bom...)
		for _, r := range text {
			if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
				out = append16(append16(out, order, r1), order, r2)
			} else {
				out = append16(out, order, r)
			}
		}
		return out, nil
	case c.table != nil:
		out := make([]byte, 0, len(text))
		for _, r := range text {
			b, ok := c.table.EncodeRune(r)
			if !ok {
				return nil, &lacking{r, c.name}
			}
			out = append(out, b)
		}
		return out, nil
	}
	return append(append(make([]byte, 0, len(bom)+len(text)), bom...), text...), nil
}

func append16(out []byte, order binary.ByteOrder, r rune) []byte {
	n := len(out)
	out = slices.Grow(out, 2)[:n+2]
	order.PutUint16(out[n:], uint16(r))
	return out
}

// has tells whether the charset has a character.
func (c *charset) has(r rune) bool {
	if c.table == nil {
		return true
	}
	_, ok := c.table.EncodeRune(r)
	return ok
}

// newBOM is the mark that a new payload begins with: UTF-16 can't be told without one.
func (c *charset) newBOM() string {
	if c.name == "utf-16" {
		return "\xff\xfe"
	}
	return ""
}
