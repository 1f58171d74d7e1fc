package gateway

import (
	"strings"
	"testing"
)

func TestNewestRecorded(t *testing.T) {
	const head = `{"format":"spookgw-recording","version":1}` + "\n"
	line := func(wrapper, rest string) string {
		return `{"kind":"write","protocol":"docs","wrapper":"` + wrapper + `",` + rest + "}\n"
	}
	ops, err := newestRecorded(strings.NewReader(head +
		line("b", `"verb":"put","address":"/1","text":"old"`) +
		line("a", `"verb":"message","address":"x","base64":"AAE="`) +
		line("b", `"verb":"put","address":"/1","text":"new"`) +
		line("b", `"verb":"put","address":"/2","omitted":true`) +
		`{"kind":"write","protocol":"docs","wr`)) // it is being written
	if err != nil || len(ops) != 2 {
		t.Fatalf("%d operations, %v", len(ops), err)
	}
	if a, b := ops[0].Op(), ops[1].Op(); string(a.Payload.Raw) != "\x00\x01" || string(b.Payload.Raw) != "new" || b.Verb.String() != "put" {
		t.Errorf("%+v, %+v", a, b)
	}
	for _, bad := range []string{
		"{}\n", "register \"x\" {}\n", `{"format":"spookgw-recording","version":2}` + "\n", head + "{\n",
	} {
		if _, err := newestRecorded(strings.NewReader(bad)); err == nil {
			t.Errorf("taken for a recording: %q", bad)
		}
	}
}
