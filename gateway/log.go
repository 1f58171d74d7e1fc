package gateway

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
)

// A logSink is a slog.Handler whose level and form a reload can change, also for loggers that were
// made from it before.
type logSink struct {
	out  io.Writer
	form *atomic.Pointer[logForm]
	// with replays what With and WithGroup added onto the form of the moment.
	with func(slog.Handler) slog.Handler
	made atomic.Pointer[madeHandler]
}

type logForm struct {
	level slog.Level
	slog.Handler
}

type madeHandler struct {
	from *logForm
	slog.Handler
}

func newLogSink(out io.Writer, b LogBlock) *logSink {
	s := &logSink{out: out, form: new(atomic.Pointer[logForm]), with: func(h slog.Handler) slog.Handler { return h }}
	s.use(b)
	return s
}

func (s *logSink) use(b LogBlock) {
	o := &slog.HandlerOptions{Level: b.Level}
	f := &logForm{level: b.Level, Handler: slog.NewTextHandler(s.out, o)}
	if b.JSON {
		f.Handler = slog.NewJSONHandler(s.out, o)
	}
	s.form.Store(f)
}

// handler is the form of the moment with what was added.
func (s *logSink) handler() slog.Handler {
	f := s.form.Load()
	if m := s.made.Load(); m != nil && m.from == f {
		return m.Handler
	}
	m := &madeHandler{f, s.with(f.Handler)}
	s.made.Store(m)
	return m.Handler
}

// Enabled implements slog.Handler.
func (s *logSink) Enabled(_ context.Context, l slog.Level) bool { return l >= s.form.Load().level }

// Handle implements slog.Handler.
func (s *logSink) Handle(ctx context.Context, r slog.Record) error { return s.handler().Handle(ctx, r) }

// WithAttrs implements slog.Handler.
func (s *logSink) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.adding(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (s *logSink) WithGroup(name string) slog.Handler {
	return s.adding(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s *logSink) adding(more func(slog.Handler) slog.Handler) slog.Handler {
	before := s.with
	return &logSink{out: s.out, form: s.form, with: func(h slog.Handler) slog.Handler { return more(before(h)) }}
}
