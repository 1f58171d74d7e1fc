package mapping

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// manyBinds are n binds of the usual kinds, in files of 100: whole documents, maps with two-way functions, in and out.
func manyBinds(n int) []diag.File {
	var files []diag.File
	var src strings.Builder
	for i := range n {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&src, "register \"site-%d/{x}\" {\n  fields = { value = number, unit = string, at = time }\n  bind \"mqtt\" \"site-%d/{x}\" {}\n}\n", i, i)
		case 1:
			fmt.Fprintf(&src, "bind \"http\" \"/v%d/{x}\" {\n  register = \"v%d/{x}\"\n  map = { value = scale(payload.v, 0.1), on = table(payload.s, { ON = true, OFF = false }) }\n}\n", i, i)
		case 2:
			fmt.Fprintf(&src, "bind \"mqtt\" \"plant/line-%d/{x}/state\" {\n  register = \"line/%d/{x}\"\n  when = payload.kind == \"state\"\n  map = { temp = payload.env.temp }\n  in = { seen = now, level = payload.v > 100 ? \"high\" : \"normal\" }\n  out = { kind = \"state\", title = upper(self.title) }\n}\n", i, i)
		case 3:
			fmt.Fprintf(&src, "bind \"mqtt\" \"device-{kind}-%d/{x}\" {\n  register = \"device/{kind}/%d/{x}\"\n  match = { kind = \"kiln|oven\" }\n  codec = text(\"{n}: {v} C\")\n  map = { n = payload.n, v = number(payload.v) }\n}\n", i, i)
		}
		if i%100 == 99 || i == n-1 {
			files = append(files, diag.File{Name: fmt.Sprintf("m%d.hcl", i/100), Bytes: []byte(src.String())})
			src.Reset()
		}
	}
	return files
}

// BenchmarkLoadAllKinds validates 1,000 binds with all checks.
func BenchmarkLoadAllKinds(b *testing.B) {
	files := manyBinds(1000)
	b.ReportAllocs()
	for b.Loop() {
		set, found := Load(Input{Files: files, Wrappers: standard()})
		if set == nil || len(found) > 0 || len(set.Binds()) != 1000 {
			b.Fatal(found.Err(), len(found))
		}
	}
}

// BenchmarkFindAmong10000 finds the bind of an address among 10,000.
func BenchmarkFindAmong10000(b *testing.B) {
	set, found := Load(Input{Files: manyBinds(10_000), Wrappers: standard()})
	if set == nil {
		b.Fatal(found.Err())
	}
	b.ReportAllocs()
	for b.Loop() {
		if !set.Maps("floor", wrappers.Message, "", "plant/line-7778/oven-3/state") {
			b.Fatal("not mapped")
		}
	}
}

// TestManyBinds finds addresses among many binds of the benchmarks without allocating.
func TestManyBinds(t *testing.T) {
	set, found := Load(Input{Files: manyBinds(400), Wrappers: standard()})
	if set == nil || len(found) > 0 {
		t.Fatal(found.Err(), found)
	}
	for address, want := range map[string]bool{
		"site-0/a": true, "plant/line-2/oven-3/state": true, "device-kiln-3/a": true, "device-lamp-3/a": false, "plant/line-3/a/state": false, "v1/a": false,
	} {
		if got := set.Maps("floor", wrappers.Message, "", address); got != want {
			t.Errorf("%s: got %v, want %v", address, got, want)
		}
	}
	if racing {
		return
	}
	if n := testing.AllocsPerRun(100, func() { set.Maps("floor", wrappers.Message, "", "plant/line-2/oven-3/state") }); n != 0 {
		t.Errorf("%v allocations for finding a bind", n)
	}
}
