package ldap

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// Active Directory's way of telling what has changed (MS-ADTS, section 3.1.1.3.4.1.3): a search of a whole naming context with a
// control that has a cookie. It names the objects that have changed since, with some of what they have; the rest is read. What
// was deleted comes as a tombstone.

const (
	objectGUID = "objectGUID" // identifies an object (MS-ADTS, section 3.1.1.1.4), 16 octets
	usnChanged = "uSNChanged" // counts the changes of one domain controller
)

// runDirSync asks until the connection ends or ctx does.
func (f *feed) runDirSync(ctx context.Context, s *session, root *rootDSE) error {
	f.polls = true
	top := root.suffix(f.a.opts.base)
	if top == nil {
		return fmt.Errorf("no naming context of the server holds %q", f.a.opts.base.String())
	}
	// Counters and cookies are those of one domain controller.
	cookie, err := f.resume(ctx, "dirsync "+f.a.opts.base.Key()+" "+root.service)
	if err != nil {
		return err
	}
	whole := cookie == nil
	if whole {
		// First the place from which changes are heard, then everything: what changes meanwhile comes twice.
		if cookie, err = f.changes(ctx, s, top, nil, func(*ldapwire.SearchResultEntry) error { return nil }); err != nil {
			return err
		}
		if _, err := f.listAll(ctx, s); err != nil {
			return err
		}
	}
	return f.rounds(ctx, "dirsync", func(ctx context.Context, first bool) error {
		next, err := f.changes(ctx, s, top, cookie, func(e *ldapwire.SearchResultEntry) error { return f.changed(ctx, s, e) })
		if errors.Is(err, errStartOver) {
			f.a.link.Count("cookie_lost", 1)
			return errors.Join(err, f.forget(ctx))
		}
		if err != nil {
			return err
		}
		cookie = next
		if first {
			return f.listed(ctx, cookie)
		}
		if len(f.batch) > 0 {
			f.batch[len(f.batch)-1].cookie = cookie
		} else {
			f.keepCookie(cookie)
		}
		return nil
	})
}

// changes calls each with what has changed since the cookie, until there is nothing more, and gives the place that it came to.
func (f *feed) changes(ctx context.Context, s *session, top dn.DN, cookie []byte, each func(*ldapwire.SearchResultEntry) error) ([]byte, error) {
	for {
		// With object security the account needs no right but to read what it is to hear of.
		d := ldapwire.DirSync{Flags: ldapwire.DirSyncObjectSecurity | ldapwire.DirSyncAncestorsFirst, Cookie: cookie}
		q := &ldapwire.SearchRequest{BaseObject: top.String(), Scope: ldapwire.ScopeWholeSubtree, Filter: anything,
			Attributes: append(f.binds.attributes(), objectGUID, "isDeleted", "name", "parentGUID")}
		last, err := s.each(ctx, func(m *ldapwire.Message) error {
			if e, ok := m.Body.(*ldapwire.SearchResultEntry); ok {
				return each(e)
			}
			return nil
		}, q, ldapwire.Control{Type: ldapwire.OIDDirSync, Criticality: true, Value: d.Encode()})
		if err != nil {
			return nil, err
		}
		if err := resultError(last); err != nil {
			switch code := codeOf(err); {
			case len(cookie) > 0 && (code == ldapwire.UnwillingToPerform || code == ldapwire.ProtocolError || code == ldapwire.Other):
				return nil, fmt.Errorf("%w: %w", errStartOver, err)
			case code == ldapwire.InsufficientAccessRights:
				return nil, fmt.Errorf("%w: grant the account \"Replicating Directory Changes\" on %s", err, top.String())
			}
			return nil, err
		}
		c := ldapwire.FindControl(last.Controls, ldapwire.OIDDirSync)
		if c == nil {
			return nil, errors.New("the server answers without a DirSync control")
		}
		r, err := ldapwire.DecodeDirSync(c.Value)
		if err != nil {
			return nil, err
		}
		if cookie = r.Cookie; r.Flags == 0 {
			return cookie, nil
		}
	}
}

// changed reports what has become of an object.
func (f *feed) changed(ctx context.Context, s *session, e *ldapwire.SearchResultEntry) error {
	guid := value(e, objectGUID)
	if len(guid) != 16 {
		return fmt.Errorf("%s came without its objectGUID", e.ObjectName)
	}
	if strings.EqualFold(value(e, "isDeleted"), "TRUE") {
		return f.add(ctx, event{uuid: guid, gone: true})
	}
	if name, err := dn.Parse(e.ObjectName); err == nil {
		if _, below := name.Below(f.a.opts.base); !below { // the search is of the whole naming context
			if was, err := f.known(ctx, guid); err != nil || was.address == "" {
				return err
			}
		}
	}
	// Of the attributes only those came that changed: it is read by its GUID (MS-ADTS, section 3.1.1.3.1.2.4).
	var now *ldapwire.SearchResultEntry
	r, err := f.a.reader(ctx)
	if err == nil {
		now, err = r.one(ctx, "<GUID="+hex.EncodeToString([]byte(guid))+">", f.attributes()...)
	}
	if err != nil {
		return err
	}
	if now == nil {
		return f.add(ctx, event{uuid: guid, gone: true})
	}
	return f.add(ctx, event{uuid: guid, entry: now, csn: f.version(now)})
}
