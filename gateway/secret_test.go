package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	type holder struct {
		Password Secret
		more     Secret
	}
	s := NewSecret("hunter2")
	h := holder{s, s}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "h", h, "p", &h)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "h", h)
	js, err := json.Marshal(map[string]any{"s": s, "h": h, "p": &s})
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(js)
	for _, f := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T %[1]v"} {
		all += fmt.Sprintf(f, s) + fmt.Sprintf(f, h) + fmt.Sprintf(f, &h) + fmt.Sprintf(f, []any{s})
	}
	all += fmt.Sprint(fmt.Errorf("wrong: %w %v", fmt.Errorf("%v", s), h))
	if strings.Contains(all, "hunter2") || strings.Contains(all, fmt.Sprintf("%x", "hunter2")) {
		t.Errorf("got %s", all)
	}
	if !strings.Contains(all, "***") || s.Reveal() != "hunter2" || !s.Equal("hunter2") || s.Equal("hunter") {
		t.Error("the secret itself is lost")
	}
}
