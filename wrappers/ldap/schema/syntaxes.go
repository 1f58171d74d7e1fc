package schema

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Syntax (RFC 4517, section 3.3).
type Syntax struct {
	OID         string
	Description string
	// Unreadable values are octets rather than text: X-NOT-HUMAN-READABLE.
	Unreadable bool
	valid      func(v []byte) bool
}

// String renders the description (RFC 4512, section 4.1.5).
func (x *Syntax) String() string {
	if x.Unreadable {
		return fmt.Sprintf("( %s DESC '%s' X-NOT-HUMAN-READABLE 'TRUE' )", x.OID, x.Description)
	}
	return fmt.Sprintf("( %s DESC '%s' )", x.OID, x.Description)
}

// Valid tells whether a value is of the syntax.
func (x *Syntax) Valid(v []byte) bool { return x.valid == nil || x.valid(v) }

var syntaxes = []*Syntax{
	{OID: arc + "3", Description: "Attribute Type Description", valid: func(v []byte) bool { _, err := ParseAttributeType(string(v)); return err == nil }},
	{OID: arc + "4", Description: "Audio", Unreadable: true},
	{OID: arc + "5", Description: "Binary", Unreadable: true},
	{OID: arc + "6", Description: "Bit String", valid: formed(bitStringForm)},
	{OID: arc + "7", Description: "Boolean", valid: func(v []byte) bool { return string(v) == "TRUE" || string(v) == "FALSE" }},
	{OID: arc + "8", Description: "Certificate", Unreadable: true, valid: berSequence},
	{OID: arc + "9", Description: "Certificate List", Unreadable: true, valid: berSequence},
	{OID: arc + "10", Description: "Certificate Pair", Unreadable: true, valid: berSequence},
	{OID: arc + "11", Description: "Country String", valid: func(v []byte) bool { return len(v) == 2 && printable(v) }},
	{OID: arc + "12", Description: "DN", valid: formed(dnForm)},
	{OID: arc + "13", Description: "Data Quality", valid: notEmpty},
	{OID: arc + "14", Description: "Delivery Method", valid: deliveryMethod},
	{OID: arc + "15", Description: "Directory String", valid: func(v []byte) bool { return len(v) > 0 && utf8.Valid(v) }},
	{OID: arc + "16", Description: "DIT Content Rule Description", valid: notEmpty},
	{OID: arc + "17", Description: "DIT Structure Rule Description", valid: notEmpty},
	{OID: arc + "19", Description: "DSA Quality", valid: notEmpty},
	{OID: arc + "21", Description: "Enhanced Guide", valid: notEmpty},
	{OID: arc + "22", Description: "Facsimile Telephone Number", valid: func(v []byte) bool { n, _, _ := strings.Cut(string(v), "$"); return n != "" && printable([]byte(n)) }},
	{OID: arc + "23", Description: "Fax", Unreadable: true},
	{OID: arc + "24", Description: "Generalized Time", valid: formed(timeForm)},
	{OID: arc + "25", Description: "Guide", valid: notEmpty},
	{OID: arc + "26", Description: "IA5 String", valid: isASCII},
	{OID: arc + "27", Description: "INTEGER", valid: integer},
	{OID: arc + "28", Description: "JPEG", Unreadable: true},
	{OID: arc + "30", Description: "Matching Rule Description", valid: notEmpty},
	{OID: arc + "31", Description: "Matching Rule Use Description", valid: notEmpty},
	{OID: arc + "34", Description: "Name And Optional UID", valid: formed(uidForm)},
	{OID: arc + "35", Description: "Name Form Description", valid: notEmpty},
	{OID: arc + "36", Description: "Numeric String", valid: func(v []byte) bool { _, ok := numericForm(nil, v, whole); return ok && len(v) > 0 }},
	{OID: arc + "37", Description: "Object Class Description", valid: func(v []byte) bool { _, err := ParseObjectClass(string(v)); return err == nil }},
	{OID: arc + "38", Description: "OID", valid: func(v []byte) bool { return isOID(string(v)) }},
	{OID: arc + "39", Description: "Other Mailbox", valid: func(v []byte) bool {
		t, m, ok := strings.Cut(string(v), "$")
		return ok && t != "" && m != "" && isASCII(v)
	}},
	{OID: arc + "40", Description: "Octet String", Unreadable: true},
	{OID: arc + "41", Description: "Postal Address", valid: func(v []byte) bool { return len(v) > 0 && utf8.Valid(v) }},
	{OID: arc + "42", Description: "Protocol Information", valid: notEmpty},
	{OID: arc + "43", Description: "Presentation Address", valid: notEmpty},
	{OID: arc + "44", Description: "Printable String", valid: func(v []byte) bool { return len(v) > 0 && printable(v) }},
	{OID: arc + "45", Description: "SubtreeSpecification", valid: notEmpty},
	{OID: arc + "49", Description: "Supported Algorithm", Unreadable: true, valid: berSequence},
	{OID: arc + "50", Description: "Telephone Number", valid: func(v []byte) bool { return len(v) > 0 && printable(v) }},
	{OID: arc + "51", Description: "Teletex Terminal Identifier", valid: notEmpty},
	{OID: arc + "52", Description: "Telex Number", valid: func(v []byte) bool { return strings.Count(string(v), "$") == 2 && isASCII(v) }},
	{OID: arc + "53", Description: "UTC Time", valid: notEmpty},
	{OID: arc + "54", Description: "LDAP Syntax Description", valid: notEmpty},
	{OID: arc + "58", Description: "Substring Assertion", valid: notEmpty},
	{OID: "1.3.6.1.1.1.0.0", Description: "NIS Netgroup Triple", valid: netgroup},
	{OID: "1.3.6.1.1.1.0.1", Description: "Boot Parameter", valid: func(v []byte) bool {
		k, rest, ok := strings.Cut(string(v), "=")
		return ok && k != "" && strings.Contains(rest, ":") && isASCII(v)
	}},
	{OID: "1.3.6.1.1.16.1", Description: "UUID", valid: func(v []byte) bool { _, ok := uuidForm(nil, v, whole); return ok && len(v) == 36 }},
	{OID: "1.3.6.1.4.1.4203.666.11.2.1", Description: "CSN", valid: notEmpty},
}

var syntaxByOID = func() map[string]*Syntax {
	m := map[string]*Syntax{}
	for _, x := range syntaxes {
		m[x.OID] = x
	}
	return m
}()

// SyntaxOf gives the syntax with this OID; nil if it is unknown.
func SyntaxOf(oid string) *Syntax { return syntaxByOID[oid] }

// Syntaxes lists all of them.
func Syntaxes() []*Syntax { return syntaxes }

func formed(form func(*Schema, []byte, piece) (string, bool)) func([]byte) bool {
	return func(v []byte) bool { _, ok := form(nil, v, whole); return ok }
}

func notEmpty(v []byte) bool { return len(v) > 0 }

// printable: RFC 4517, section 3.3.29.
func printable(v []byte) bool {
	for _, c := range v {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("'()+,-.=/:? ", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// integer: RFC 4517, section 3.3.16, no leading zeros, no "-0".
func integer(v []byte) bool {
	s := strings.TrimPrefix(string(v), "-")
	if s == "" || len(s) > maxDigits || s[0] == '0' && len(v) > 1 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func berSequence(v []byte) bool {
	if len(v) < 2 || v[0] != 0x30 {
		return false
	}
	n, at := int(v[1]), 2
	if n >= 0x80 {
		size := n & 0x7f
		if size == 0 || size > 4 || len(v) < 2+size {
			return false
		}
		n = 0
		for _, c := range v[2 : 2+size] {
			n = n<<8 | int(c)
		}
		at += size
	}
	return len(v) == at+n
}

func deliveryMethod(v []byte) bool {
	for m := range strings.SplitSeq(string(v), "$") {
		switch strings.TrimSpace(m) {
		case "any", "mhs", "physical", "telex", "teletex", "g3fax", "g4fax", "ia5", "videotex", "telephone":
		default:
			return false
		}
	}
	return true
}

func netgroup(v []byte) bool {
	s := string(v)
	return strings.HasPrefix(s, "(") && strings.HasSuffix(s, ")") && strings.Count(s, ",") == 2 && isASCII(v)
}
