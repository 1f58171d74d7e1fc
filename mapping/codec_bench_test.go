package mapping

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// manyRows is a CSV of n rows, the size of a recipe or of a parameter list of a PLC.
func manyRows(n int) []byte {
	var b bytes.Buffer
	b.WriteString("parameter;value;unit;comment;station\r\n")
	for i := range n {
		fmt.Fprintf(&b, "P%05d;%d,%02d;\"mm\";\"set by hand; see page %d\";S%d\r\n", i, i%700, i%100, i%90, i%12)
	}
	return b.Bytes()
}

func BenchmarkCSV(b *testing.B) {
	for _, name := range []string{"utf-8", "windows-1252"} {
		c := &csvForm{sep: ';', header: true, comma: true, charset: findCharset(name)}
		p := &wrappers.Payload{Raw: manyRows(10_000)}
		v, err := c.decode(p, scriptEnv.Now)
		if err != nil || v.Len() != 10_000 {
			b.Fatal(err, v.Len())
		}
		b.Run("decode/"+name, func(b *testing.B) {
			b.SetBytes(int64(len(p.Raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.decode(p, scriptEnv.Now); err != nil {
					b.Fatal(err)
				}
			}
		})
		encode := func(b *testing.B, v engine.Value, prev *wrappers.Payload) {
			b.SetBytes(int64(len(p.Raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.encode(v, prev); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run("encode/"+name, func(b *testing.B) { encode(b, v, nil) })
		// One cell changed, one row gone, as a write-back does.
		items := append([]engine.Value(nil), v.Items()[1:]...)
		items[5000] = setPath(items[5000], []string{"value"}, lattice.Int(7))
		changed := lattice.List(items...)
		b.Run("change/"+name, func(b *testing.B) { encode(b, changed, p) })
	}
}

func BenchmarkXML(b *testing.B) {
	var doc bytes.Buffer
	doc.WriteString("<r>\n")
	for i := range 1000 {
		fmt.Fprintf(&doc, "  <row id=\"%d\"><name>P%05d</name><value>%d.5</value></row>\n", i, i, i)
	}
	doc.WriteString("</r>\n")
	c := &xmlForm{"r"}
	p := &wrappers.Payload{Raw: doc.Bytes()}
	v, err := c.decode(p, scriptEnv.Now)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(p.Raw)))
		for b.Loop() {
			if _, err := c.decode(p, scriptEnv.Now); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(p.Raw)))
		for b.Loop() {
			if _, err := c.encode(v, p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
