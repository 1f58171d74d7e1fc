package mapping

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// A codec is the form of a payload.
type codec uint8

const (
	jsonCodec codec = iota
	textCodec
	numberCodec
	bytesCodec
	cborCodec
	autoCodec
	formCodec // text("…"), a template over the whole payload
)

var codecNames = map[string]codec{"json": jsonCodec, "text": textCodec, "number": numberCodec, "bytes": bytesCodec, "cbor": cborCodec, "auto": autoCodec}

var laterCodecs = []string{"csv", "form", "xml", "senml"}

// objects tells whether a payload has members.
func (c codec) objects() bool {
	return c == jsonCodec || c == cborCodec || c == autoCodec || c == formCodec
}

func (c codec) flavour() flavour {
	switch c {
	case cborCodec:
		return exact
	case formCodec:
		return textual
	case textCodec, numberCodec, bytesCodec:
		return wholeText
	}
	return jsonLike
}

func (c codec) mediaType() string {
	switch c {
	case jsonCodec:
		return "application/json"
	case cborCodec:
		return "application/cbor"
	case bytesCodec:
		return "application/octet-stream"
	}
	return "text/plain; charset=utf-8"
}

// detect is what auto takes a payload for: what its media type says, else JSON if it is that, else
// text if it is UTF-8, else bytes.
func detect(p *wrappers.Payload) codec {
	t, _, _ := strings.Cut(strings.ToLower(p.Type), ";")
	t = strings.TrimSpace(t)
	switch {
	case t == "application/json" || strings.HasSuffix(t, "+json"):
		return jsonCodec
	case t == "application/cbor" || strings.HasSuffix(t, "+cbor"):
		return cborCodec
	case t == "application/octet-stream":
		return bytesCodec
	}
	if _, err := lattice.ParseJSON(p.Raw); err == nil && !strings.HasPrefix(t, "text/") {
		return jsonCodec
	}
	if utf8.Valid(p.Raw) {
		return textCodec
	}
	return bytesCodec
}

// decode reads a payload. Errors are for the peer.
func (c codec) decode(p *wrappers.Payload, form *template) (engine.Value, error) {
	switch c {
	case autoCodec:
		return detect(p).decode(p, nil)
	case textCodec:
		if !utf8.Valid(p.Raw) {
			return engine.Value{}, refuse("the payload is not UTF-8 text")
		}
		return lattice.String(string(p.Raw)), nil
	case numberCodec:
		n, err := lattice.ParseNumber(strings.TrimSpace(string(p.Raw)))
		if err != nil {
			return engine.Value{}, refuse("the payload is not a number")
		}
		return n, nil
	case bytesCodec:
		return lattice.Bytes(p.Raw), nil
	case cborCodec:
		return decodeCBOR(p.Raw)
	case formCodec:
		return decodeForm(form, p.Raw)
	}
	if len(p.Raw) == 0 {
		return engine.Value{}, refuse("the payload is empty; JSON is wanted")
	}
	v, err := lattice.ParseJSON(p.Raw)
	if err != nil {
		return engine.Value{}, refuse("%s", peerText(err))
	}
	return v, nil
}

// peerText drops the sentinel's name from an error of the lattice.
func peerText(err error) string {
	s := err.Error()
	for _, pre := range []string{"invalid: ", "too large: "} {
		s = strings.ReplaceAll(s, pre, "")
	}
	return s
}

// encode writes a payload.
func (c codec) encode(v engine.Value, form *template) ([]byte, error) {
	switch c {
	case textCodec:
		switch v.Kind() {
		case lattice.StringKind:
			return []byte(v.Text()), nil
		case lattice.BoolKind, lattice.IntKind, lattice.DecimalKind:
			return []byte(v.String()), nil
		}
		return nil, notA(v, "one text")
	case numberCodec:
		if !v.IsNumber() {
			return nil, notA(v, "a number")
		}
		return []byte(v.Number()), nil
	case bytesCodec:
		switch v.Kind() {
		case lattice.BytesKind:
			return slices.Clone(v.Bytes()), nil
		case lattice.StringKind:
			return []byte(v.Text()), nil
		}
		return nil, notA(v, "bytes")
	case cborCodec:
		return cborMode.Marshal(toCBOR(v))
	case formCodec:
		return encodeForm(form, v)
	}
	if v.IsAbsent() {
		return nil, fmt.Errorf("there is nothing to write")
	}
	return v.AppendJSON(nil), nil
}

// decodeForm reads text("…"): an object of the captures.
func decodeForm(form *template, raw []byte) (engine.Value, error) {
	s := &form.segments[0]
	caps := make([]string, len(s.shape.escapes))
	text := strings.TrimRight(string(raw), "\r\n")
	if !utf8.Valid(raw) || !s.shape.match(text, caps) || !s.shape.values(caps) {
		return engine.Value{}, refuse("the payload is not of the form %q", form.text)
	}
	members := make([]lattice.Member, len(caps))
	for i, v := range caps {
		members[i] = lattice.Member{Name: form.names[i], Value: lattice.String(v)}
	}
	return lattice.Object(members...), nil
}

func encodeForm(form *template, v engine.Value) ([]byte, error) {
	missing := ""
	out, ok := form.segments[0].shape.append(nil, func(i int) string {
		m, _ := v.Member(form.names[i])
		text, err := captureText(m)
		if err != nil || text == "" {
			missing = form.names[i]
			return ""
		}
		return text
	})
	if !ok {
		return nil, fmt.Errorf("%q has no text for {%s}", form.text, missing)
	}
	return out, nil
}

// captureText is a value as it stands in an address or a text.
func captureText(v engine.Value) (string, error) {
	switch v.Kind() {
	case lattice.StringKind:
		return v.Text(), nil
	case lattice.BoolKind, lattice.IntKind, lattice.DecimalKind:
		return v.String(), nil
	case lattice.BytesKind:
		if utf8.Valid(v.Bytes()) {
			return string(v.Bytes()), nil
		}
	}
	return "", notA(v, "a text, a number or a bool")
}

// CBOR of peers is any valid CBOR (RFC 8949), not only the deterministic one that registers are
// stored in.
var cborRead = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: lattice.MaxDepth, MaxArrayElements: 1 << 17, MaxMapPairs: 1 << 17,
		IntDec: cbor.IntDecConvertNone, BigIntDec: cbor.BigIntDecodePointer, TimeTag: cbor.DecTagIgnored,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

var cborMode = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, ShortestFloat: cbor.ShortestFloat16, BigIntConvert: cbor.BigIntConvertShortest}.EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

func decodeCBOR(raw []byte) (engine.Value, error) {
	var x any
	if err := cborRead.Unmarshal(raw, &x); err != nil {
		return engine.Value{}, refuse("the payload is not CBOR: %s", err)
	}
	return fromCBOR(x, 0)
}

func fromCBOR(x any, depth int) (engine.Value, error) {
	if depth > lattice.MaxDepth {
		return engine.Value{}, refuse("nested deeper than %d levels", lattice.MaxDepth)
	}
	switch x := x.(type) {
	case nil:
		return lattice.Null(), nil
	case bool:
		return lattice.Bool(x), nil
	case int64:
		return lattice.Int(x), nil
	case uint64:
		if x <= math.MaxInt64 {
			return lattice.Int(int64(x)), nil
		}
		return fromText(strconv.FormatUint(x, 10))
	case *big.Int:
		return fromBig(x, 0)
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return engine.Value{}, refuse("%v is not a number that can be stored", x)
		}
		return fromText(strconv.FormatFloat(x, 'g', -1, 64))
	case string:
		return lattice.String(x), nil
	case []byte:
		return lattice.Bytes(x), nil
	case []any:
		items := make([]engine.Value, len(x))
		for i := range x {
			var err error
			if items[i], err = fromCBOR(x[i], depth+1); err != nil {
				return engine.Value{}, err
			}
		}
		return lattice.List(items...), nil
	case map[any]any:
		members := make([]lattice.Member, 0, len(x))
		for k, v := range x {
			name, ok := k.(string)
			if !ok {
				return engine.Value{}, refuse("a CBOR map has a key that is not text")
			}
			m, err := fromCBOR(v, depth+1)
			if err != nil {
				return engine.Value{}, err
			}
			members = append(members, lattice.Member{Name: name, Value: m})
		}
		return lattice.Object(members...), nil
	case cbor.Tag:
		if pair, ok := x.Content.([]any); ok && x.Number == 4 && len(pair) == 2 {
			exp, err1 := fromCBOR(pair[0], depth+1)
			coef, err2 := fromCBOR(pair[1], depth+1)
			if err1 != nil || err2 != nil || !coef.IsNumber() || exp.Kind() != lattice.IntKind || exp.Int() < -2000 || exp.Int() > 2000 {
				return engine.Value{}, refuse("a decimal fraction (CBOR tag 4) that can't be read")
			}
			c, e := coef.Decimal()
			return fromBig(c, int(exp.Int())+e)
		}
		return fromCBOR(x.Content, depth+1) // other tags say how to read what can be read without them
	}
	return engine.Value{}, refuse("a CBOR item that can't be stored")
}

func fromBig(c *big.Int, exp int) (engine.Value, error) {
	if c.BitLen() > 400 {
		return engine.Value{}, refuse("a number of more than 100 digits")
	}
	return fromText(c.String() + "e" + strconv.Itoa(exp))
}

func fromText(s string) (engine.Value, error) {
	n, err := lattice.ParseNumber(strings.Replace(s, "e+", "e", 1))
	if err != nil {
		return n, refuse("%s", peerText(err))
	}
	return n, nil
}

// toCBOR gives what most readers know: a decimal is a float where that says the same number, else
// a decimal fraction (RFC 8949, section 3.4.4).
func toCBOR(v engine.Value) any {
	switch v.Kind() {
	case lattice.BoolKind:
		return v.Bool()
	case lattice.IntKind:
		return v.Int()
	case lattice.DecimalKind:
		if f, err := strconv.ParseFloat(v.Number(), 64); err == nil {
			if back, err := fromText(strconv.FormatFloat(f, 'g', -1, 64)); err == nil && back.Equal(v) {
				return f
			}
		}
		c, exp := v.Decimal()
		return cbor.Tag{Number: 4, Content: []any{int64(exp), c}}
	case lattice.StringKind:
		return v.Text()
	case lattice.BytesKind:
		return append([]byte{}, v.Bytes()...) // nil would be written as null
	case lattice.ListKind, lattice.SetKind:
		out := make([]any, v.Len())
		for i, item := range v.Items() {
			out[i] = toCBOR(item)
		}
		return out
	case lattice.ObjectKind:
		out := make(map[string]any, v.Len())
		for _, m := range v.Members() {
			out[m.Name] = toCBOR(m.Value)
		}
		return out
	}
	return nil
}
