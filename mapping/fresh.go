package mapping

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// What new() and date() give.

// fresh is an id that nobody has had: a UUID of version 7 (RFC 9562, section 5.7), so that later ones sort behind
// earlier ones, down to a quarter of a microsecond.
func (m *message) fresh() engine.Value {
	if m.env.New != nil {
		return lattice.String(m.env.New())
	}
	return lattice.String(uuid7(m.instant()))
}

func uuid7(at time.Time) string {
	var b [16]byte
	rand.Read(b[:])
	ms := at.UnixMilli()
	binary.BigEndian.PutUint64(b[:8], uint64(ms)<<16)
	part := uint16(at.UnixNano() % int64(time.Millisecond) * 4096 / int64(time.Millisecond))
	b[6], b[7] = 0x70|byte(part>>8)&0xf, byte(part)
	b[8] = 0x80 | b[8]&0x3f
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

const dateUsage = `date(now) or date(now, "Europe/Berlin")`

// dateZone reads the constant zone of a call of date(). The error is for the user.
func dateZone(e *hclsyntax.FunctionCallExpr) (*time.Location, error) {
	if len(e.Args) < 1 || len(e.Args) > 2 {
		return nil, fmt.Errorf("it is used as %s", dateUsage)
	}
	if len(e.Args) == 1 {
		return time.UTC, nil
	}
	c, diags := e.Args[1].Value(nil)
	if diags.HasErrors() || !c.IsWhollyKnown() {
		return nil, fmt.Errorf("the time zone is a constant: %s", dateUsage)
	}
	v, err := fromCty(c)
	if err != nil {
		return nil, err
	}
	return zoneOf(v)
}

func zoneOf(v engine.Value) (*time.Location, error) {
	zone, err := time.LoadLocation(v.Text())
	if err != nil || v.Text() == "" || v.Text() == "Local" {
		return nil, fmt.Errorf("unknown time zone %s: a name as in \"Europe/Berlin\" is wanted", brief(v))
	}
	return zone, nil
}

// date is the day of a time in a zone.
func date(v engine.Value, zone *time.Location) (engine.Value, error) {
	at, err := time.Parse(time.RFC3339Nano, v.Text())
	if err != nil {
		return absent, notA(v, "a time in RFC 3339")
	}
	return lattice.String(at.In(zone).Format(time.DateOnly)), nil
}

// dateFunc is date() within what HCL evaluates itself.
var dateFunc = function.New(&function.Spec{
	Params:   []function.Parameter{{Name: "time", Type: cty.String}},
	VarParam: &function.Parameter{Name: "zone", Type: cty.String},
	Type:     function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		zone := time.UTC
		if len(args) > 1 {
			var err error
			if zone, err = zoneOf(lattice.String(args[1].AsString())); err != nil {
				return cty.NilVal, err
			}
		}
		v, err := date(lattice.String(args[0].AsString()), zone)
		if err != nil {
			return cty.NilVal, err
		}
		return cty.StringVal(v.Text()), nil
	},
})
