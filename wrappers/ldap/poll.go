package ldap

import (
	"context"
	"fmt"
	"time"

	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// Where a server has no feed it is asked: for what was modified since it was asked last, by a clock that counts whole seconds,
// so the last ones are asked for again, and for who is there, since nothing is left of an entry that has gone.

// overlap is how far a round looks back: modifyTimestamp counts seconds (RFC 4512, section 3.4.2), and the clocks of several
// servers behind one name differ.
const overlap = 5 * time.Second

// runPoll asks until the connection ends or ctx does.
func (f *feed) runPoll(ctx context.Context, s *session, root *rootDSE) error {
	f.polls = true
	if err := f.recognise(ctx, s); err != nil {
		return err
	}
	cookie, err := f.resume(ctx, "poll "+f.id+" "+f.a.opts.base.Key())
	if err != nil {
		return err
	}
	since := string(cookie)
	if since == "" {
		if since, err = f.listAll(ctx, s); err != nil {
			return err
		}
	}
	return f.rounds(ctx, "poll", func(ctx context.Context, first bool) error {
		next, err := f.modifiedSince(ctx, s, since)
		if err != nil {
			return err
		}
		if err := f.missing(ctx, s); err != nil {
			return err
		}
		if next > since || first {
			since = max(next, since)
			f.keepCookie([]byte(since))
			if first {
				return f.listed(ctx, []byte(since))
			}
		}
		return nil
	})
}

// rounds asks every poll_ms, or sooner where somebody waits for it.
func (f *feed) rounds(ctx context.Context, kind string, ask func(ctx context.Context, first bool) error) error {
	a := f.a
	for first := true; ; first = false {
		a.mu.Lock()
		a.asking = true
		a.mu.Unlock()
		f.began = time.Now()
		err := ask(ctx, first)
		if err == nil {
			err = f.flush(ctx)
		}
		a.mu.Lock()
		a.asking = false
		a.rounds++
		a.mu.Unlock()
		if err != nil {
			return err
		}
		if first {
			a.stands(kind)
		}
		a.wake()
		timer := time.NewTimer(a.opts.poll)
		select {
		case <-timer.C:
		case <-a.hurry:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// recognise finds out by what the server's entries are known.
func (f *feed) recognise(ctx context.Context, s *session) error {
	e, err := s.one(ctx, f.a.opts.base.String(), "entryUUID", "nsUniqueId", objectGUID, "entryCSN", usnChanged, "modifyTimestamp")
	switch {
	case err != nil:
		return err
	case e == nil:
		return fmt.Errorf("there is no entry %q, which base names, or the account may not see it", f.a.opts.base.String())
	}
	for _, a := range []string{"entryUUID", "nsUniqueId", objectGUID} {
		if f.id == "" && value(e, a) != "" {
			f.id = a
		}
	}
	for _, a := range []string{"entryCSN", usnChanged} {
		if f.csn == "" && value(e, a) != "" {
			f.csn = a
		}
	}
	if value(e, "modifyTimestamp") == "" {
		return fmt.Errorf("the entries have no modifyTimestamp that the account may read: there is no way to hear what changes")
	}
	if f.id == "" {
		f.a.log().Warn("the server's entries have no identity but their names: one that is renamed is one that goes and one that comes")
	}
	return nil
}

// listAll reports everything there is, and gives the newest time of modification.
func (f *feed) listAll(ctx context.Context, s *session) (since string, err error) {
	there := map[string]bool{}
	f.began = time.Now()
	err = f.a.list(ctx, s, f.a.opts.base.String(), anything, append(f.attributes(), "modifyTimestamp"), func(e *ldapwire.SearchResultEntry) error {
		id := f.identity(e)
		there[id] = true
		since = max(since, value(e, "modifyTimestamp"))
		return f.add(ctx, event{uuid: id, entry: e, csn: f.version(e), listed: true})
	})
	if err != nil {
		return "", err
	}
	return since, f.vanished(ctx, there, true)
}

// modifiedSince reports what was modified at a time or later, or shortly before it.
func (f *feed) modifiedSince(ctx context.Context, s *session, since string) (next string, err error) {
	filter := anything
	if at, ok := entry.ParseTime(since); ok {
		filter = atLeast("modifyTimestamp", at.Add(-overlap).UTC().Format("20060102150405Z"))
	}
	err = f.a.list(ctx, s, f.a.opts.base.String(), filter, append(f.attributes(), "modifyTimestamp"), func(e *ldapwire.SearchResultEntry) error {
		next = max(next, value(e, "modifyTimestamp"))
		return f.add(ctx, event{uuid: f.identity(e), entry: e, csn: f.version(e)})
	})
	return next, err
}

// missing reports who is not there any more.
func (f *feed) missing(ctx context.Context, s *session) error {
	attributes := []string{"1.1"}
	if f.id != "" {
		attributes = []string{f.id}
	}
	there := map[string]bool{}
	err := f.a.list(ctx, s, f.a.opts.base.String(), anything, attributes, func(e *ldapwire.SearchResultEntry) error {
		there[f.identity(e)] = true
		return nil
	})
	if err != nil {
		return err
	}
	return f.vanished(ctx, there, false)
}
