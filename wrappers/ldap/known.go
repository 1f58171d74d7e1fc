package ldap

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// known is what is known of an entry.
type known struct {
	address string // "": nothing
	csn     string
}

// A kept cookie goes on where it came from, as long as the binds mean the same.
type keptCookie struct {
	Where  string // the kind of feed, and what it searched
	Binds  string
	Cookie []byte
}

// note gives the records of who is where.
func (f *feed) note(uuid string, k known) []wrappers.Record {
	f.noted[uuid] = k
	f.holder[path(k.address)] = uuid
	return []wrappers.Record{
		{Key: entryKey + hex.EncodeToString([]byte(uuid)), Value: []byte(k.address + "\x00" + k.csn)},
		{Key: placeKey + path(k.address), Value: []byte(uuid)},
	}
}

// known gives what is known of an entry.
func (f *feed) known(ctx context.Context, uuid string) (known, error) {
	if k, ok := f.noted[uuid]; ok {
		return k, nil
	}
	key := entryKey + hex.EncodeToString([]byte(uuid))
	raw, err := f.kept(ctx, key)
	if err != nil || raw == nil {
		return known{}, err
	}
	return parseKnown(raw), nil
}

func parseKnown(raw []byte) known {
	address, csn, _ := strings.Cut(string(raw), "\x00")
	return known{address, csn}
}

// holderOf tells who stands at an address, "" for nobody.
func (f *feed) holderOf(ctx context.Context, address string) (string, error) {
	p := path(address)
	if uuid, ok := f.holder[p]; ok {
		return uuid, nil
	}
	raw, err := f.kept(ctx, placeKey+p)
	return string(raw), err
}

// kept gives one record: it is the first with its key as a prefix.
func (f *feed) kept(ctx context.Context, key string) ([]byte, error) {
	for rec, err := range f.a.link.Kept(ctx, key) {
		if err != nil {
			return nil, err
		}
		if rec.Key == key {
			return rec.Value, nil
		}
		break
	}
	return nil, nil
}

// path is the address from the base on, so that what stands below it has it as a prefix. It is the same for addresses that a
// directory can't tell apart.
func path(address string) string {
	d, err := dn.ParseAddress(address)
	if err != nil {
		return strings.ToLower(address)
	}
	d = slices.Clone(d)
	slices.Reverse(d)
	return d.Key()
}

// identity and version read what the feed knows entries by.
func (f *feed) identity(e *ldapwire.SearchResultEntry) string {
	if f.id == "" {
		return nameIdentity(e.ObjectName)
	}
	v := values(e, f.id)
	if len(v) == 0 {
		return nameIdentity(e.ObjectName)
	}
	if id, ok := parseUUID(string(v[0])); ok {
		return id
	}
	return string(v[0])
}

func nameIdentity(name string) string {
	d, err := dn.Parse(name)
	if err != nil {
		return "dn:" + strings.ToLower(name)
	}
	return "dn:" + d.Key()
}

// parseUUID reads the string form of RFC 4122, section 3, which entryUUID has (RFC 4530).
func parseUUID(s string) (string, bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return "", false
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return string(b), err == nil && len(b) == 16
}

func (f *feed) version(e *ldapwire.SearchResultEntry) string {
	v := value(e, f.csn)
	if f.csn == usnChanged && v != "" && len(v) < 20 {
		v = strings.Repeat("0", 20-len(v)) + v // as numbers, and as texts
	}
	return v
}
