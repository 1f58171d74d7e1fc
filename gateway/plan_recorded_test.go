package gateway

import (
	"strings"
	"testing"
)

const recordingHead = `{"format":"spookgw-recording","version":1}` + "\n"

func TestReadRecording(t *testing.T) {
	ops, err := readRecording(strings.NewReader(recordingHead +
		`{"wrapper":"b","verb":"put","address":"/1","text":"old"}` + "\n" +
		`{"wrapper":"a","verb":"message","address":"x","base64":"AAE="}` + "\n" +
		`{"wrapper":"b","verb":"put","address":"/1","text":"new"}` + "\n" +
		`{"wrapper":"b","verb":"put","address":"/2","omitted":true}` + "\n"))
	if err != nil || len(ops) != 2 {
		t.Fatalf("%d operations, %v", len(ops), err)
	}
	first, err1 := ops[0].operation()
	second, err2 := ops[1].operation()
	if err1 != nil || err2 != nil || string(first.Payload.Raw) != "\x00\x01" || string(second.Payload.Raw) != "new" || second.Verb.String() != "put" {
		t.Errorf("%+v %v, %+v %v", first, err1, second, err2)
	}
	for _, bad := range []string{
		"{}\n", "register \"x\" {}\n", `{"format":"spookgw-recording","version":2}` + "\n", recordingHead + "{\n",
	} {
		if _, err := readRecording(strings.NewReader(bad)); err == nil {
			t.Errorf("taken for a recording: %q", bad)
		}
	}
}

func FuzzReadRecording(f *testing.F) {
	f.Add(recordingHead + `{"wrapper":"b","verb":"put","address":"/1","parts":[{"base64":"!"}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		ops, err := readRecording(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, o := range ops {
			if o.Omitted {
				t.Error("an operation whose payload is not there")
			}
			if op, err := o.operation(); err == nil && o.Text != nil && string(op.Payload.Raw) != *o.Text {
				t.Errorf("payload %q, recorded %q", op.Payload.Raw, *o.Text)
			}
		}
	})
}
