package mapping

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

const csvRecipes = `
register "recipe/{recipe}/{param}" {
  fields = { value = number, unit = string }
  bind "http" "/recipes/{recipe}.csv" {
    codec = csv(";")
    each  = payload
    key   = { param = row.parameter }
    map   = { value = number(row.value, ","), unit = row.unit }
  }
}
`

func csvOf(rows int) (string, []engine.StateBlock) {
	var b strings.Builder
	b.WriteString("parameter;value;unit;comment\r\n")
	states := make([]engine.StateBlock, rows)
	for i := range rows {
		fmt.Fprintf(&b, "p%05d;%d,5;kg;row %d\r\n", i, i, i)
		n, err := lattice.ParseNumber(fmt.Sprintf("%d.5", i))
		if err != nil {
			panic(err)
		}
		states[i] = engine.StateBlock{Register: fmt.Sprintf("recipe/bread/p%05d", i), Exists: true, Value: lattice.Object(
			lattice.Member{Name: "value", Value: n}, lattice.Member{Name: "unit", Value: lattice.String("kg")})}
	}
	return b.String(), states
}

func csvSet(b *testing.B) *Set {
	b.Helper()
	set, diags := Load(Input{Files: []diag.File{{Name: "m.hcl", Bytes: []byte(csvRecipes)}}, Wrappers: standard()})
	if set == nil {
		var text strings.Builder
		diags.WriteText(&text, false, 100)
		b.Fatal(text.String())
	}
	return set
}

// BenchmarkEachIn and BenchmarkEachOut are a CSV of 10,000 rows to its registers, and they laid over it.
func BenchmarkEachIn(b *testing.B) {
	set := csvSet(b)
	text, _ := csvOf(10_000)
	op := &wrappers.Operation{Verb: wrappers.Put, Address: "/recipes/bread.csv", Payload: wrappers.Payload{Raw: []byte(text)}}
	var effects []Effect
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if effects, err = set.AppendIn(effects[:0], "web", op, Env{}); err != nil || len(effects) != 10_001 {
			b.Fatal(len(effects), err)
		}
	}
}

func BenchmarkEachOut(b *testing.B) {
	set := csvSet(b)
	text, states := csvOf(10_000)
	p := set.Places("web", "recipe/bread/p00001")[0]
	prev := wrappers.Payload{Raw: []byte(text)}
	b.ReportAllocs()
	for b.Loop() {
		pay, err := p.Bind.OutRows(p, states, true, &prev, Env{})
		if err != nil || string(pay.Raw) != text {
			b.Fatal(err)
		}
	}
}
