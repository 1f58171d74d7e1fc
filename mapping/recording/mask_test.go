package recording

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/wrappers"
)

func record(address, payload, kind string, meta map[string]string) Operation {
	o := Of(&wrappers.Operation{Verb: wrappers.Put, Address: address, Payload: wrappers.Payload{Raw: []byte(payload), Type: kind, Meta: meta}})
	o.Mask()
	return o
}

func TestMaskPayload(t *testing.T) {
	for _, test := range []struct{ name, address, payload, kind, want string }{
		{"a member", "/a", `{"user":"ann","password":"hunter2"}`, "", `{"user":"ann","password":"***"}`},
		{"case and dashes", "/a", `{"X-API-Key":"k","accessToken":"t","ApiKey" : 7}`, "", `{"X-API-Key":"***","accessToken":"***","ApiKey" : "***"}`},
		{"a member deep within", "/a", `[{"a":{"Secret":"s","n":1}}, 2]`, "", `[{"a":{"Secret":"***","n":1}}, 2]`},
		{"an object", "/a", `{"credentials":{"user":"ann","password":"x"},"v":1}`, "", `{"credentials":"***","v":1}`},
		{"null stays", "/a", `{"password":null}`, "", `{"password":null}`},
		{"a pair of members", "/a", `[{"name":"password","value":"x"},{"name":"speed","value":3}]`, "", `[{"name":"password","value":"***"},{"name":"speed","value":3}]`},
		{"the pair turned round", "/a", `{"value":{"token":"y"},"key":"api_key"}`, "", `{"value":"***","key":"api_key"}`},
		{"a duplicate", "/a", `{"password":"a","password":"b"}`, "", `{"password":"***","password":"***"}`},
		{"JSON lines", "/a", "{\"token\":1}\n{\"token\":2}\n", "", "{\"token\":\"***\"}\n{\"token\":\"***\"}\n"},
		{"JSON that breaks off", "/a", `{"user":"ann","password":"hunter2`, "", `{"user":"ann","password":"***`},
		{"a URL with a password", "/a", `{"url":"amqp://ann:hunter2@host/x"}`, "", `{"url":"amqp://ann:***@host/x"}`},
		{"a form", "/a", "user=ann&password=hunter2&x=1", "", "user=ann&password=***&x=1"},
		{"a form with an escaped name", "/a", "user%5Bpassword%5D=h&x=1", "", "user%5Bpassword%5D=***&x=1"},
		{"a form whose value has the separator", "/a", "a=b=c&secret=d=e&f=g", "", "a=b=c&secret=***&f=g"},
		{"text", "/a", "user: ann\npassword: two words\nend", "", "user: ann\npassword: ***\nend"},
		{"text with quotes", "/a", `login user="ann" password="two \" words" x="1"`, "", `login user="ann" password="***" x="1"`},
		{"a header in a text", "/a", "Authorization: Bearer abcdefgh.ijk", "", "Authorization: ***"},
		{"a scheme alone", "/a", "use Bearer abcdefgh.ijk now", "", "use Bearer *** now"},
		{"XML", "/a", `<u><name>ann</name><Password a="1">x<b/>y</Password><k token="t"/></u>`, "", `<u><name>ann</name><Password a="1">***</Password><k token="***"/></u>`},
		{"XML with a prefix and CDATA", "/a", `<w:Secret><![CDATA[x]]></w:Secret>`, "", `<w:Secret>***</w:Secret>`},
		{"CSV", "/a", "name;password;age\r\nann;h;1\r\nbob;i;2\r\n", "", "name;password;age\r\nann;***;1\r\nbob;***;2\r\n"},
		{"a document of its own", "/users/ann/password", "hunter2", "", "***"},
		{"a document of its own, JSON", "users/ann/api-key", `{"a":1}`, "", `"***"`},
		{"Latin-1", "/a", "name=J\xfcrgen\npassword=gr\xfcn", "", "name=J\xfcrgen\npassword=***"},
		{"multipart", "/a", "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nh\r\n--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b--", "multipart/form-data; boundary=b",
			"--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n***\r\n--b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--b--"},
		{"nothing", "/a", `{"value":21.50, "unit":"C", "n": [1,2] }`, "", `{"value":21.50, "unit":"C", "n": [1,2] }`},
		{"a reading", "sensors/a", "21.5", "", "21.5"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := record(test.address, test.payload, test.kind, nil)
			if got := string(o.Payload()); got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
			if o.Masked != (test.want != test.payload) {
				t.Errorf("masked is %v", o.Masked)
			}
			if o.Size != len(test.payload) {
				t.Errorf("size: got %d, want %d", o.Size, len(test.payload))
			}
		})
	}
}

func TestMaskCBOR(t *testing.T) {
	raw, err := cbor.Marshal(map[string]any{"temp": 21.5, "wifi": []any{map[string]any{"psk": "hunter2"}}})
	if err != nil {
		t.Fatal(err)
	}
	o := record("/a", string(raw), "application/cbor", nil)
	if got := o.Payload(); bytes.Contains(got, []byte("hunter2")) || !bytes.Contains(got, []byte(Stars)) || !o.Masked {
		t.Errorf("got %q, masked %v", got, o.Masked)
	}
	clean, _ := cbor.Marshal(map[string]any{"temp": 21.5})
	if o := record("/a", string(clean), "", nil); !bytes.Equal(o.Payload(), clean) || o.Masked {
		t.Errorf("without a secret: got %x, want %x", o.Payload(), clean)
	}
}

func TestMaskAddressAndMeta(t *testing.T) {
	o := record("/update?id=7&API_KEY=abc&x=1", "", "", map[string]string{"authorization": "Basic YW5uOmg=", "x-auth-token": "t", "cookie": "a=b", "referer": "https://h/?token=abc&x=1", "accept": "*/*"})
	if want := "/update?id=7&API_KEY=***&x=1"; o.Address != want {
		t.Errorf("address: got %s, want %s", o.Address, want)
	}
	want := map[string]string{"authorization": "***", "x-auth-token": "***", "cookie": "***", "referer": "https://h/?token=***&x=1", "accept": "*/*"}
	for k, v := range want {
		if o.Meta[k] != v {
			t.Errorf("%s: got %q, want %q", k, o.Meta[k], v)
		}
	}
}

// The operation in flight shares its maps with the record.
func TestMaskLeavesTheOperationAlone(t *testing.T) {
	op := wrappers.Operation{Verb: wrappers.Put, Address: "/a", Payload: wrappers.Payload{Raw: []byte(`{"token":"x"}`), Meta: map[string]string{"cookie": "a=b"}}}
	o := Of(&op)
	o.Mask()
	if op.Payload.Meta["cookie"] != "a=b" || string(op.Payload.Raw) != `{"token":"x"}` {
		t.Errorf("the operation became %v", op)
	}
}

func TestMaskOmitsWhatItCannotRead(t *testing.T) {
	for name, o := range map[string]Operation{
		"a content coding": record("/a", "\x1f\x8b\x08 password=hunter2", "", map[string]string{"content-encoding": "gzip"}),
		"gzip by its look": record("/a", "\x1f\x8b\x08\xff", "", nil),
	} {
		if !o.Omitted || o.Payload() != nil {
			t.Errorf("%s: got %q, omitted %v", name, o.Payload(), o.Omitted)
		}
	}
}

func TestSecretName(t *testing.T) {
	for name, want := range map[string]bool{
		"password": true, "Pass-Word": true, "old_password": true, "API_KEY": true, "apikey": true, "Authorization": true, "refresh_token": true, "PIN": true,
		"value": false, "passive": false, "pinned": false, "key": false, "author": false, "temperature": false, "": false, "compass": false,
	} {
		if got := SecretName(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}

// FuzzMask: JSON stays JSON, and no member that is a secret keeps its value.
func FuzzMask(f *testing.F) {
	for _, s := range []string{`{"password":"hunter2"}`, `{"a":[{"token":{"b":1}}]}`, "a=b&secret=c", "<a><token>x</token></a>", "a;pwd\n1;2\n", `{"name":"token","value":[{"pin":1}]}`, "\xa1\x63psk\x61x"} {
		f.Add([]byte(s), "text/plain")
	}
	f.Fuzz(func(t *testing.T, raw []byte, kind string) {
		o := Of(&wrappers.Operation{Verb: wrappers.Put, Address: "/a", Payload: wrappers.Payload{Raw: raw, Type: kind}})
		o.Mask()
		var before, after any
		if json.Unmarshal(raw, &before) != nil || strings.Contains(kind, "multipart") || o.Omitted {
			return
		}
		if err := json.Unmarshal(o.Payload(), &after); err != nil {
			if _, plain := before.(string); plain {
				return // a text like any other
			}
			t.Fatalf("%q became %q: %v", raw, o.Payload(), err)
		}
		look(t, after, 0)
	})
}

func look(t *testing.T, x any, depth int) {
	if depth > maxDeep {
		return
	}
	switch x := x.(type) {
	case []any:
		for _, item := range x {
			look(t, item, depth+1)
		}
	case map[string]any:
		for k, v := range x {
			if v != nil && v != Stars && SecretName(k) {
				t.Fatalf("%q is %v", k, v)
			}
			look(t, v, depth+1)
		}
	}
}

func TestMaskStatement(t *testing.T) {
	for in, want := range map[string]string{
		"INSERT INTO users (name, password) VALUES ('ann', 'it''s')": "INSERT INTO users (name, password) VALUES ('***', '***')",
		"UPDATE t SET api_key = 'x' WHERE a = 1":                     "UPDATE t SET api_key = '***' WHERE a = 1",
		"UPDATE t SET token = E'a\\'b', n = 2":                       "UPDATE t SET token = E'***', n = 2",
		"UPDATE t SET pwd = $$x$$":                                   "UPDATE t SET pwd = ***",
		"UPDATE t SET pwd = $1":                                      "UPDATE t SET pwd = $1",
		"UPDATE t SET secret = 'cut o":                               "UPDATE t SET secret = '***'",
		"INSERT INTO sensors VALUES ('my password')":                 "INSERT INTO sensors VALUES ('my password')",
	} {
		if got := maskStatement(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
