// Package entry leads from the attributes of an entry to the payload that the mapping knows, and back.
//
// A payload is an object of attribute → value, as CBOR: one value for an attribute that has one, a
// list for one that has several, null for one that has none any more. What is no member is not spoken
// of. A value is a text; or a bool, a number, a time (a text by RFC 3339) or bytes, where the syntax
// of its attribute says so.
package entry

import (
	"slices"
	"strings"
)

// A Kind is what the values of an attribute are.
type Kind uint8

const (
	Text    Kind = iota // UTF-8; values that are not are bytes
	Boolean             // TRUE, FALSE (RFC 4517, section 3.3.3)
	Integer             // section 3.3.16
	Time                // GeneralizedTime, section 3.3.13
	Binary              // any octets
	Number              // a text that a bind takes for a number, with or without a fraction
)

// kinds are those of the syntaxes that are no text (RFC 4517, section 3.3; RFC 4523, section 2).
var kinds = map[string]Kind{
	"1.3.6.1.4.1.1466.115.121.1.7":  Boolean,
	"1.3.6.1.4.1.1466.115.121.1.27": Integer,
	"1.2.840.113556.1.4.906":        Integer, // Active Directory: LargeInteger
	"1.3.6.1.4.1.1466.115.121.1.24": Time,
	"1.3.6.1.4.1.1466.115.121.1.40": Binary, // Octet String
	"1.3.6.1.4.1.1466.115.121.1.28": Binary, // JPEG
	"1.3.6.1.4.1.1466.115.121.1.23": Binary, // Fax
	"1.3.6.1.4.1.1466.115.121.1.4":  Binary, // Audio
	"1.3.6.1.4.1.1466.115.121.1.5":  Binary, // Binary
	"1.3.6.1.4.1.1466.115.121.1.8":  Binary, // Certificate
	"1.3.6.1.4.1.1466.115.121.1.9":  Binary, // Certificate List
	"1.3.6.1.4.1.1466.115.121.1.10": Binary, // Certificate Pair
	"1.3.6.1.4.1.1466.115.121.1.49": Binary, // Supported Algorithm
	"1.2.840.113556.1.4.907":        Binary, // Active Directory: security descriptor
}

// KindOf gives the kind of values of a syntax, by its OID.
func KindOf(syntax string) Kind { return kinds[syntax] }

// A Type is what must be known of an attribute type (RFC 4512, section 4.1.2).
type Type struct {
	Names  []string // the first is the one to use; in the spelling of the schema
	OID    string
	Kind   Kind
	Single bool // SINGLE-VALUE
}

// Types are attribute types by name. It is not changed once it is in use; then it is safe for concurrent use.
type Types struct{ byName map[string]*Type }

// Add takes in a type under all its names and its OID, in place of what was there.
func (t *Types) Add(typ Type) {
	if t.byName == nil {
		t.byName = map[string]*Type{}
	}
	for _, n := range typ.Names {
		t.byName[strings.ToLower(n)] = &typ
	}
	if typ.OID != "" {
		t.byName[typ.OID] = &typ
	}
}

// Clone gives types of its own, to Add to.
func (t *Types) Clone() *Types {
	out := &Types{byName: make(map[string]*Type, len(t.byName))}
	for n, typ := range t.byName {
		out.byName[n] = typ
	}
	return out
}

// Find gives the type of an attribute description, nil if it is not known: the values are texts then.
func (t *Types) Find(description string) *Type {
	name, _ := split(description)
	return t.byName[name]
}

func (t *Types) kind(description string) Kind {
	if typ := t.Find(description); typ != nil {
		return typ.Kind
	}
	return Text
}

// split takes an attribute description apart (RFC 4512, section 2.5): its type in small letters, and its
// options, in small letters and their order. The option "binary" is a matter of transfer (RFC 4522).
func split(description string) (name, options string) {
	name, options, _ = strings.Cut(strings.ToLower(description), ";")
	if options == "" {
		return name, ""
	}
	list := strings.Split(options, ";")
	slices.Sort(list)
	list = slices.DeleteFunc(list, func(o string) bool { return o == "binary" || o == "" })
	return name, strings.Join(slices.Compact(list), ";")
}

// Same tells whether two attribute descriptions are of one attribute: by any of its names, with the same
// options.
func (t *Types) Same(a, b string) bool { return t.key(a) == t.key(b) }

// key is the same for descriptions of the same attribute.
func (t *Types) key(description string) string {
	name, options := split(description)
	if typ := t.byName[name]; typ != nil {
		name = strings.ToLower(typ.Names[0])
	}
	if options != "" {
		name += ";" + options
	}
	return name
}

// Name is the description in the spelling of the schema: "telephoneNumber;lang-de".
func (t *Types) Name(description string) string {
	name, options := split(description)
	if typ := t.byName[name]; typ != nil {
		name = typ.Names[0]
	} else {
		name, _, _ = strings.Cut(description, ";")
	}
	if options != "" {
		name += ";" + options
	}
	return name
}

// WellKnown are the types of RFC 4512, 4519, 4523, 4524, 2307 and 2798 whose values are no texts or that
// have several names, for servers that don't show their schema, and for virtual ones.
func WellKnown() *Types {
	t := &Types{}
	for _, one := range wellKnown {
		t.Add(one)
	}
	return t
}

var wellKnown = []Type{
	{Names: []string{"cn", "commonName"}, OID: "2.5.4.3"},
	{Names: []string{"sn", "surname"}, OID: "2.5.4.4"},
	{Names: []string{"c", "countryName"}, OID: "2.5.4.6", Single: true},
	{Names: []string{"l", "localityName"}, OID: "2.5.4.7"},
	{Names: []string{"st", "stateOrProvinceName"}, OID: "2.5.4.8"},
	{Names: []string{"street", "streetAddress"}, OID: "2.5.4.9"},
	{Names: []string{"o", "organizationName"}, OID: "2.5.4.10"},
	{Names: []string{"ou", "organizationalUnitName"}, OID: "2.5.4.11"},
	{Names: []string{"title"}, OID: "2.5.4.12"},
	{Names: []string{"description"}, OID: "2.5.4.13"},
	{Names: []string{"telephoneNumber"}, OID: "2.5.4.20"},
	{Names: []string{"facsimileTelephoneNumber", "fax"}, OID: "2.5.4.23"},
	{Names: []string{"member"}, OID: "2.5.4.31"},
	{Names: []string{"owner"}, OID: "2.5.4.32"},
	{Names: []string{"userPassword"}, OID: "2.5.4.35", Kind: Binary},
	{Names: []string{"userCertificate"}, OID: "2.5.4.36", Kind: Binary},
	{Names: []string{"cACertificate"}, OID: "2.5.4.37", Kind: Binary},
	{Names: []string{"authorityRevocationList"}, OID: "2.5.4.38", Kind: Binary},
	{Names: []string{"certificateRevocationList"}, OID: "2.5.4.39", Kind: Binary},
	{Names: []string{"crossCertificatePair"}, OID: "2.5.4.40", Kind: Binary},
	{Names: []string{"givenName", "gn"}, OID: "2.5.4.42"},
	{Names: []string{"uniqueMember"}, OID: "2.5.4.50"},
	{Names: []string{"objectClass"}, OID: "2.5.4.0"},
	{Names: []string{"uid", "userid"}, OID: "0.9.2342.19200300.100.1.1"},
	{Names: []string{"mail", "rfc822Mailbox"}, OID: "0.9.2342.19200300.100.1.3"},
	{Names: []string{"photo"}, OID: "0.9.2342.19200300.100.1.7", Kind: Binary},
	{Names: []string{"manager"}, OID: "0.9.2342.19200300.100.1.10"},
	{Names: []string{"homePhone", "homeTelephoneNumber"}, OID: "0.9.2342.19200300.100.1.20"},
	{Names: []string{"dc", "domainComponent"}, OID: "0.9.2342.19200300.100.1.25", Single: true},
	{Names: []string{"mobile", "mobileTelephoneNumber"}, OID: "0.9.2342.19200300.100.1.41"},
	{Names: []string{"pager", "pagerTelephoneNumber"}, OID: "0.9.2342.19200300.100.1.42"},
	{Names: []string{"audio"}, OID: "0.9.2342.19200300.100.1.55", Kind: Binary},
	{Names: []string{"jpegPhoto"}, OID: "0.9.2342.19200300.100.1.60", Kind: Binary},
	{Names: []string{"employeeNumber"}, OID: "2.16.840.1.113730.3.1.3", Single: true},
	{Names: []string{"displayName"}, OID: "2.16.840.1.113730.3.1.241", Single: true},
	{Names: []string{"userSMIMECertificate"}, OID: "2.16.840.1.113730.3.1.40", Kind: Binary},
	{Names: []string{"userPKCS12"}, OID: "2.16.840.1.113730.3.1.216", Kind: Binary},
	{Names: []string{"uidNumber"}, OID: "1.3.6.1.1.1.1.0", Kind: Integer, Single: true},
	{Names: []string{"gidNumber"}, OID: "1.3.6.1.1.1.1.1", Kind: Integer, Single: true},
	{Names: []string{"homeDirectory"}, OID: "1.3.6.1.1.1.1.3", Single: true},
	{Names: []string{"loginShell"}, OID: "1.3.6.1.1.1.1.4", Single: true},
	{Names: []string{"shadowLastChange"}, OID: "1.3.6.1.1.1.1.5", Kind: Integer, Single: true},
	{Names: []string{"shadowMin"}, OID: "1.3.6.1.1.1.1.6", Kind: Integer, Single: true},
	{Names: []string{"shadowMax"}, OID: "1.3.6.1.1.1.1.7", Kind: Integer, Single: true},
	{Names: []string{"shadowWarning"}, OID: "1.3.6.1.1.1.1.8", Kind: Integer, Single: true},
	{Names: []string{"shadowInactive"}, OID: "1.3.6.1.1.1.1.9", Kind: Integer, Single: true},
	{Names: []string{"shadowExpire"}, OID: "1.3.6.1.1.1.1.10", Kind: Integer, Single: true},
	{Names: []string{"shadowFlag"}, OID: "1.3.6.1.1.1.1.11", Kind: Integer, Single: true},
	{Names: []string{"memberUid"}, OID: "1.3.6.1.1.1.1.12"},
	{Names: []string{"ipServicePort"}, OID: "1.3.6.1.1.1.1.15", Kind: Integer, Single: true},
	{Names: []string{"ipProtocolNumber"}, OID: "1.3.6.1.1.1.1.17", Kind: Integer, Single: true},
	{Names: []string{"oncRpcNumber"}, OID: "1.3.6.1.1.1.1.18", Kind: Integer, Single: true},
	{Names: []string{"createTimestamp"}, OID: "2.5.18.1", Kind: Time, Single: true},
	{Names: []string{"modifyTimestamp"}, OID: "2.5.18.2", Kind: Time, Single: true},
	{Names: []string{"hasSubordinates"}, OID: "2.5.18.9", Kind: Boolean, Single: true},
	{Names: []string{"unicodePwd"}, OID: "1.2.840.113556.1.4.90", Kind: Binary, Single: true},
	{Names: []string{"objectGUID"}, OID: "1.2.840.113556.1.4.2", Kind: Binary, Single: true},
	{Names: []string{"objectSid"}, OID: "1.2.840.113556.1.4.146", Kind: Binary, Single: true},
	{Names: []string{"thumbnailPhoto"}, OID: "1.2.840.113556.1.4.1", Kind: Binary, Single: true},
	{Names: []string{"uSNChanged"}, OID: "1.2.840.113556.1.2.120", Kind: Integer, Single: true},
	{Names: []string{"uSNCreated"}, OID: "1.2.840.113556.1.2.19", Kind: Integer, Single: true},
	{Names: []string{"whenChanged"}, OID: "1.2.840.113556.1.2.3", Kind: Time, Single: true},
	{Names: []string{"whenCreated"}, OID: "1.2.840.113556.1.2.2", Kind: Time, Single: true},
	{Names: []string{"userAccountControl"}, OID: "1.2.840.113556.1.4.8", Kind: Integer, Single: true},
	{Names: []string{"accountExpires"}, OID: "1.2.840.113556.1.4.159", Kind: Integer, Single: true},
	{Names: []string{"pwdLastSet"}, OID: "1.2.840.113556.1.4.96", Kind: Integer, Single: true},
}

// secrets are attributes that hold passwords or keys, in small letters.
var secrets = map[string]bool{
	"userpassword": true, "2.5.4.35": true, "unicodepwd": true, "1.2.840.113556.1.4.90": true, "authpassword": true,
	"dbcspwd": true, "lmpwdhistory": true, "ntpwdhistory": true, "supplementalcredentials": true, "pwdhistory": true,
	"sambantpassword": true, "sambalmpassword": true, "sambapasswordhistory": true, "krbprincipalkey": true, "krbmkey": true,
	"krbpwdhistory": true, "olcrootpw": true, "ipanthash": true, "oathsecret": true, "userpkcs12": true, "shadowpassword": true,
	"ms-mcs-admpwd": true, "mslaps-password": true, "mslaps-encryptedpassword": true,
}

// Secret tells whether an attribute holds passwords or keys: such a one is stored where a bind names it and
// never otherwise, and is masked wherever operators look.
func Secret(description string) bool {
	name, _ := split(description)
	return secrets[name]
}
