package wire

import (
	"errors"
	"fmt"

	"github.com/spooksystems/gateway/engine"
)

// The codes of JSON-RPC 2.0, section 5.1, and the engine's kinds beside them.
const (
	CodeSyntax  = -32700
	CodeForm    = -32600
	CodeMethod  = -32601
	CodeParams  = -32602
	CodeFailure = -32603
)

var kinds = []struct {
	code int
	name string
	err  error
}{
	{-32001, "invalid", engine.ErrInvalid},
	{-32002, "not_found", engine.ErrNotFound},
	{-32003, "conflict", engine.ErrConflict},
	{-32004, "too_large", engine.ErrTooLarge},
	{-32005, "full", engine.ErrFull},
	{-32006, "closed", engine.ErrClosed},
	{-32007, "unavailable", engine.ErrUnavailable},
	{-32008, "denied", engine.ErrDenied},
}

// FromError gives an error's form. What wraps none of the engine's kinds is a failure.
func FromError(err error, register string) *Error {
	e := &Error{Code: CodeFailure, Message: "failure", Data: &ErrorData{Kind: "failure", Register: register, Detail: err.Error()}}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			e.Code, e.Message, e.Data.Kind = k.code, k.err.Error(), k.name
			break
		}
	}
	return e
}

// ToError gives the error behind its form: it wraps the engine's kind, so that a caller of the
// client tells errors apart as a caller of the engine does.
func (e *Error) ToError() error {
	text := e.Message
	if e.Data != nil && e.Data.Detail != "" {
		text = e.Data.Detail
	}
	for _, k := range kinds {
		if k.code == e.Code {
			return &remoteError{text, k.err}
		}
	}
	return fmt.Errorf("daemon: %s (code %d)", text, e.Code)
}

// A remoteError reads like the error at the other end, which names the kind itself.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }
