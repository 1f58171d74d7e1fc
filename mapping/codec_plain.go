package mapping

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// Payloads that are one value: text, number, bytes.

const plainText = "text/plain; charset=utf-8"

type wholeTextForm struct{}

func (wholeTextForm) traits() traits { return traits{holds: oneValue, flavour: wholeText, whole: true} }

func (wholeTextForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	if !utf8.Valid(p.Raw) {
		return engine.Value{}, refuse("the payload is not UTF-8 text")
	}
	return lattice.String(string(p.Raw)), nil
}

func (wholeTextForm) encode(v engine.Value, _ *wrappers.Payload) (wrappers.Payload, error) {
	switch v.Kind() {
	case lattice.StringKind:
		return wrappers.Payload{Raw: []byte(v.Text()), Type: plainText}, nil
	case lattice.BoolKind, lattice.IntKind, lattice.DecimalKind:
		return wrappers.Payload{Raw: []byte(v.String()), Type: plainText}, nil
	}
	return wrappers.Payload{Type: plainText}, notA(v, "one text")
}

type numberForm struct{}

func (numberForm) traits() traits { return traits{holds: oneValue, flavour: wholeText, whole: true} }

func (numberForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	n, err := lattice.ParseNumber(strings.TrimSpace(string(p.Raw)))
	if err != nil {
		return engine.Value{}, refuse("the payload is not a number")
	}
	return n, nil
}

func (numberForm) encode(v engine.Value, _ *wrappers.Payload) (wrappers.Payload, error) {
	if !v.IsNumber() {
		return wrappers.Payload{Type: plainText}, notA(v, "a number")
	}
	return wrappers.Payload{Raw: []byte(v.Number()), Type: plainText}, nil
}

type bytesForm struct{}

func (bytesForm) traits() traits { return traits{holds: oneValue, flavour: wholeText, whole: true} }

func (bytesForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	return lattice.Bytes(p.Raw), nil
}

func (bytesForm) encode(v engine.Value, _ *wrappers.Payload) (wrappers.Payload, error) {
	out := wrappers.Payload{Type: "application/octet-stream"}
	switch v.Kind() {
	case lattice.BytesKind:
		out.Raw = slices.Clone(v.Bytes())
	case lattice.StringKind:
		out.Raw = []byte(v.Text())
	default:
		return out, notA(v, "bytes")
	}
	return out, nil
}
