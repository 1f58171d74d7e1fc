package link

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// An Invitation is what one node gives another, by any way that nobody else can read: whoever has it can be the other
// half of one pair.
type Invitation struct {
	Domain   string
	Endpoint engine.EndpointID
	Key      [32]byte // SHA-256 of the inviter's public key
	Address  string   // "host:port", or "unix:/path"
	Secret   [16]byte
	Expires  time.Time
}

const (
	invitationPrefix  = "spookgw-pair-"
	invitationVersion = 1
	maxInvitation     = 4096 // characters
)

// String is the invitation as text: letters, digits, "-" and "_".
func (i *Invitation) String() string {
	raw := lattice.AppendUint(lattice.AppendArray(nil, 7), invitationVersion)
	raw = lattice.AppendBytes(lattice.AppendText(raw, i.Domain), i.Endpoint[:])
	raw = lattice.AppendText(lattice.AppendBytes(raw, i.Key[:]), i.Address)
	raw = lattice.AppendInt(lattice.AppendBytes(raw, i.Secret[:]), i.Expires.Unix())
	sum := sha256.Sum256(raw)
	return invitationPrefix + base64.RawURLEncoding.EncodeToString(append(raw, sum[:4]...))
}

// ParseInvitation reads what String wrote. The error is engine.ErrInvalid.
func ParseInvitation(text string) (*Invitation, error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, invitationPrefix) || len(text) > maxInvitation {
		return nil, invalid("not an invitation: it begins with %q", invitationPrefix)
	}
	raw, err := base64.RawURLEncoding.DecodeString(text[len(invitationPrefix):])
	if err != nil || len(raw) < 4 {
		return nil, invalid("an invitation that was cut or changed on its way")
	}
	body := raw[:len(raw)-4]
	if sum := sha256.Sum256(body); string(sum[:4]) != string(raw[len(body):]) {
		return nil, invalid("an invitation that was cut or changed on its way")
	}
	r := lattice.NewReader(body)
	if n := r.Count(1); n < 7 {
		r.Fail("an invitation of %d parts", n)
	} else if v := r.Uint(); v != invitationVersion {
		return nil, invalid("an invitation of version %d; this program knows %d", v, invitationVersion)
	} else {
		i := &Invitation{Domain: r.Text()}
		r.Fixed(i.Endpoint[:])
		r.Fixed(i.Key[:])
		i.Address = r.Text()
		r.Fixed(i.Secret[:])
		i.Expires = time.Unix(r.Int(), 0).UTC()
		if err := r.End(); err == nil {
			return i, nil
		}
	}
	return nil, fmt.Errorf("an invitation: %w", r.End())
}

// An Offer is an invitation that was given and not used, without its secret.
type Offer struct {
	ID      string // the beginning of the secret's hash
	Name    string // what the pair will be called here
	Made    time.Time
	Expires time.Time
	hash    [32]byte // of the secret
}

const (
	offerTable   = "pairoffer"
	offerVersion = 1
)

func newOffer(secret []byte, name string, made, expires time.Time) *Offer {
	o := &Offer{Name: name, Made: made, Expires: expires, hash: sha256.Sum256(secret)}
	o.ID = hex.EncodeToString(o.hash[:6])
	return o
}

func (o *Offer) encode() []byte {
	dst := lattice.AppendUint(lattice.AppendArray(nil, 5), offerVersion)
	dst = lattice.AppendText(lattice.AppendBytes(dst, o.hash[:]), o.Name)
	return lattice.AppendInt(lattice.AppendInt(dst, o.Made.UnixMilli()), o.Expires.UnixMilli())
}

func parseOffer(raw []byte) (*Offer, error) {
	r := lattice.NewReader(raw)
	r.Array(5)
	if v := r.Uint(); v != offerVersion {
		r.Fail("an offer of version %d", v)
	}
	o := &Offer{}
	r.Fixed(o.hash[:])
	o.Name, o.Made, o.Expires = r.Text(), time.UnixMilli(r.Int()).UTC(), time.UnixMilli(r.Int()).UTC()
	o.ID = hex.EncodeToString(o.hash[:6])
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("a kept offer: %w", err)
	}
	return o, nil
}

// ID is what the offer of this invitation is known by to who made it.
func (i *Invitation) ID() string { return newOffer(i.Secret[:], "", time.Time{}, i.Expires).ID }
