package http

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/spooksystems/gateway/wrappers"
)

// statusOf is the one table from the kinds of error to status codes.
var statusOf = map[error]int{
	wrappers.ErrUnmapped:    http.StatusNotFound,
	wrappers.ErrInvalid:     http.StatusUnprocessableEntity,
	wrappers.ErrNotFound:    http.StatusNotFound,
	wrappers.ErrDenied:      http.StatusForbidden,
	wrappers.ErrConflict:    http.StatusConflict, // 412 when the request named a condition
	wrappers.ErrTooLarge:    http.StatusRequestEntityTooLarge,
	wrappers.ErrUnavailable: http.StatusServiceUnavailable,
}

// status gives the code for an error of the link.
func status(err error) int { return statusOf[wrappers.Kind(err)] }

// retryAfter is what a 503 asks for, in seconds.
const retryAfter = 5

// A problem is an error as a peer sees it (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

func (p problem) body() []byte {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	b, err := json.Marshal(p)
	if err != nil {
		return nil // strings and a number: it can't fail
	}
	return append(b, '\n')
}

// fail answers a request of a net/http server with a problem.
func fail(w http.ResponseWriter, code int, detail string) {
	body := problem{Status: code, Detail: detail}.body()
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if code == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	w.WriteHeader(code)
	_, _ = w.Write(body) // the peer may be gone; nothing depends on it
}

// rawProblem is a whole HTTP/1.1 response for a peer of the relay.
func rawProblem(code int, detail string, close bool, head bool) []byte {
	body := problem{Status: code, Detail: detail}.body()
	b := make([]byte, 0, 256+len(body))
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(code), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(code)...)
	b = append(b, "\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n"...)
	if code == http.StatusServiceUnavailable {
		b = append(b, "Retry-After: "...)
		b = strconv.AppendInt(b, retryAfter, 10)
		b = append(b, "\r\n"...)
	}
	if close {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	if head {
		return b
	}
	return append(b, body...)
}

// detail is what a peer is told of an error at an address.
func detail(err error, address string) string {
	reason := wrappers.Reason(err)
	if reason == wrappers.ErrUnmapped.Error() {
		return "no bind maps " + address
	}
	return reason
}
