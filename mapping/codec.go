package mapping

import (
	"fmt"
	"mime"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// A codec is the form of a payload. It is immutable. A new one takes a file of its own and a line in codecs.
type codec interface {
	traits() traits
	// decode reads a payload; now is what relative times are relative to. Errors are refusals for the peer.
	decode(p *wrappers.Payload, now time.Time) (engine.Value, error)
	// encode writes a document, with its media type. prev is the payload that is there now, nil where there is none or
	// it isn't known: what of it the document doesn't say (order, layout, line ends) is kept. v holds all members and
	// rows that shall be there, also those of prev. The error says why it can't be written.
	encode(v engine.Value, prev *wrappers.Payload) (wrappers.Payload, error)
}

// traits are what a bind must know of its codec.
type traits struct {
	holds   holding
	flavour flavour
	whole   bool // a write needs nothing of what was there before
}

// A holding is what `payload` is.
type holding uint8

const (
	oneValue holding = iota // a text, a number, bytes
	members                 // mostly an object
	rows                    // a list of objects
)

// A codecMaker makes a codec of the constants in its call; without a call there are none. The error is for the user.
type codecMaker struct {
	usage    string
	min, max int
	make     func(args []engine.Value) (codec, error)
}

var (
	jsonCodec   codec = jsonForm{}
	textCodec   codec = wholeTextForm{}
	numberCodec codec = numberForm{}
	bytesCodec  codec = bytesForm{}
	cborCodec   codec = cborForm{}
	autoCodec   codec = autoForm{}
	rowCodec    codec = rowForm{}
	entryCodec  codec = entryForm{}
)

var codecs = map[string]codecMaker{
	"json":   fixed("json", jsonCodec),
	"text":   {`text, text("{name}: {value}")`, 0, 1, makeText},
	"number": fixed("number", numberCodec),
	"bytes":  fixed("bytes", bytesCodec),
	"cbor":   fixed("cbor", cborCodec),
	"auto":   fixed("auto", autoCodec),
	"csv":    {`csv, csv(";"), csv(";", { names = ["a", "b"], decimal = ",", charset = "windows-1252" })`, 0, 2, makeCSV},
	"form":   fixed("form", urlCodec),
	"xml":    {`xml("root")`, 1, 1, makeXML},
	"senml":  fixed("senml", senmlCodec),
}

func fixed(name string, c codec) codecMaker {
	return codecMaker{name, 0, 0, func([]engine.Value) (codec, error) { return c, nil }}
}

func codecNames() []string {
	var names []string
	for n := range codecs {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Limits of a payload: what one may make the gateway hold in memory at once.
const (
	maxPayload = 16 << 20 // bytes
	maxRows    = 100_000
	maxColumns = 1000
	maxCells   = 1_000_000 // of a CSV; elements and attributes of XML; parameters of a form
)

// tooLarge refuses by size.
func tooLarge(format string, args ...any) error {
	return wrappers.Refuse(wrappers.ErrTooLarge, fmt.Sprintf(format, args...))
}

// checkSize refuses what would take too much memory to look into.
func checkSize(raw []byte) error {
	if len(raw) > maxPayload {
		return tooLarge("the payload has %d MiB, at most %d are read", (len(raw)+1<<20-1)>>20, maxPayload>>20)
	}
	return nil
}

// mediaType gives the media type of a payload without parameters, and its charset, both in lower case.
func mediaType(p *wrappers.Payload) (kind, charset string) {
	if p == nil || p.Type == "" {
		return "", ""
	}
	if kind, params, err := mime.ParseMediaType(p.Type); err == nil {
		return kind, strings.ToLower(params["charset"])
	}
	kind, _, _ = strings.Cut(strings.ToLower(p.Type), ";")
	return strings.TrimSpace(kind), ""
}

// autoForm is a payload that says itself what it is.
type autoForm struct{}

func (autoForm) traits() traits { return traits{holds: members, flavour: jsonLike} }

func (autoForm) decode(p *wrappers.Payload, now time.Time) (engine.Value, error) {
	return detect(p).decode(p, now)
}

// encode goes by what was there before, as far as that can say v.
func (autoForm) encode(v engine.Value, prev *wrappers.Payload) (wrappers.Payload, error) {
	k := jsonCodec
	if prev != nil && len(prev.Raw) > 0 {
		k = detect(prev)
	}
	return autoFor(k, v).encode(v, prev)
}

// autoFor gives k where it can carry v and be detected again, else what can.
func autoFor(k codec, v engine.Value) codec {
	switch {
	case v.Kind() == lattice.BytesKind:
		return bytesCodec
	case k == textCodec && v.Kind() == lattice.StringKind:
		// What would read as JSON has to be it.
		if detect(&wrappers.Payload{Raw: []byte(v.Text())}) == textCodec {
			return k
		}
		return jsonCodec
	case k == bytesCodec || k == textCodec:
		return jsonCodec
	case k.traits().holds == rows && v.Kind() != lattice.ListKind,
		k.traits().flavour == cells && k.traits().holds == members && !isObject(v):
		return jsonCodec
	}
	return k
}

// detect is what auto takes a payload for: what its media type says, else JSON if it is that, else
// text if it is UTF-8, else bytes.
func detect(p *wrappers.Payload) codec {
	t, _ := mediaType(p)
	switch {
	case t == "text/csv":
		return csvCodec
	case t == "application/x-www-form-urlencoded":
		if _, err := lattice.ParseJSON(p.Raw); err == nil {
			return jsonCodec // clients call it a form unasked, curl among them
		}
		return urlCodec
	case t == "application/xml", t == "text/xml":
		return xmlCodec
	case t == "application/senml+json", t == "application/senml+cbor":
		return senmlCodec
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

// peerText drops the sentinel's name from an error of the lattice.
func peerText(err error) string {
	s := err.Error()
	for _, pre := range []string{"invalid: ", "too large: "} {
		s = strings.ReplaceAll(s, pre, "")
	}
	return s
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
