package sql

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/wrappers"
)

// A saying is a message that the relay writes into a client's transaction, ahead of a statement that
// writes mapped tables: who says it, and what.
type saying struct {
	Principal   string `json:"p,omitempty"`
	Verified    bool   `json:"v,omitempty"`
	Peer        string `json:"a,omitempty"`
	Statement   string `json:"s,omitempty"`
	Application string `json:"n,omitempty"`
}

func (s *saying) who() wrappers.Who {
	return wrappers.Who{Principal: s.Principal, Verified: s.Verified, Peer: s.Peer}
}

func (s *saying) meta() map[string]string {
	return map[string]string{"statement": s.Statement, "application": s.Application}
}

// sealKey is the record of the key that sayings bear a code of. It is durable, since the server may
// show after a restart what was said before.
const sealKey = "exact/key"

const (
	sealSize = 16 // bytes of the HMAC-SHA256
	saidKind = "who:"
)

// loadSeal gives the key, making it the first time.
func loadSeal(ctx context.Context, link wrappers.Link) ([]byte, error) {
	for rec, err := range link.Kept(ctx, sealKey) {
		if err != nil {
			return nil, err
		}
		if rec.Key == sealKey && len(rec.Value) == sha256.Size {
			return rec.Value, nil
		}
	}
	key := make([]byte, sha256.Size)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	return key, link.Keep(ctx, wrappers.Record{Key: sealKey, Value: key})
}

// seal writes a saying as a message. Whoever may log on to the database can write messages, too: a
// code tells which are this gateway's.
func (s *saying) seal(key []byte) []byte {
	text, err := json.Marshal(s)
	if err != nil {
		return nil // strings and a bool
	}
	b := make([]byte, 0, len(saidKind)+sealSize+len(text))
	b = append(b, saidKind...)
	b = append(b, codeOf(key, text)...)
	return append(b, text...)
}

func codeOf(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)[:sealSize]
}

// unseal reads a saying; nil: the message is none of this gateway's.
func unseal(key, content []byte) *saying {
	const head = len(saidKind) + sealSize
	if key == nil || len(content) < head || string(content[:len(saidKind)]) != saidKind {
		return nil
	}
	text := content[head:]
	if !hmac.Equal(codeOf(key, text), content[len(saidKind):head]) {
		return nil
	}
	s := &saying{}
	if json.Unmarshal(text, s) != nil {
		return nil
	}
	return s
}

// mayAll looks whether every client may write messages: one that may not would see its transaction fail.
func (d *database) mayAll(ctx context.Context, c *pgconn.PgConn) error {
	if d.seal == nil {
		return nil
	}
	r, err := one(ctx, c, `SELECT bool_and(pg_catalog.has_function_privilege('public', p.oid, 'EXECUTE')), string_agg(p.oid::regprocedure::text, ', ')
		FROM pg_catalog.pg_proc p WHERE p.proname = 'pg_logical_emit_message' AND p.pronamespace = 'pg_catalog'::regnamespace`)
	if err != nil {
		return err
	}
	d.exact.Store(r[0].text == "t")
	text := ""
	if r[0].text != "t" {
		text = fmt.Sprintf("attribute = \"exact\" writes messages in the clients' names, and not everybody may: nobody is named. Run: GRANT EXECUTE ON FUNCTION %s TO PUBLIC", r[1].text)
		d.log.Error(text)
	}
	d.link.Trouble("attribute", text)
	return nil
}

// said takes a saying of the feed: what follows in the transaction is of its statement.
func (f *feed) said(s *saying) {
	f.name()
	f.tx.said = s
}

// name attributes what has come since the last saying, or since the transaction began.
func (f *feed) name() {
	mine := f.batch[min(f.tx.named, len(f.batch)):]
	f.tx.named, f.tx.tables = len(f.batch), 0
	s := f.tx.said
	if s == nil || len(mine) == 0 {
		return
	}
	meta := s.meta()
	for i := range mine {
		if !mine[i].Ours {
			mine[i].Who, mine[i].Payload.Meta = s.who(), meta
		}
	}
}
