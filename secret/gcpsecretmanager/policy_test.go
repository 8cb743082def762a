package gcpsecretmanager_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nexus-broker/nexus-broker/secret"
	"github.com/nexus-broker/nexus-broker/secret/gcpsecretmanager"
	"github.com/nexus-broker/nexus-broker/secret/secrettest"
	"github.com/nexus-broker/nexus-broker/test/gcpserver"
)

// grants reads the roles and bindings that a policy's commands make.
func grants(t *testing.T, policy string) []gcpserver.Grant {
	t.Helper()
	roles := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?s)gcloud iam roles create (\w+) .*?--permissions=(\S+)`).FindAllStringSubmatch(policy, -1) {
		roles[m[1]] = strings.Split(m[2], ",")
	}
	var bound []gcpserver.Grant
	for _, m := range regexp.MustCompile(`(?s)add-iam-policy-binding .*?roles/(\w+)".*?--condition=(.*?)\n`).FindAllStringSubmatch(policy, -1) {
		permissions := roles[m[1]]
		if len(permissions) == 0 {
			t.Errorf("role %s is bound and not made", m[1])
		}
		if m[2] == "None" {
			bound = append(bound, gcpserver.Grant{Permissions: permissions})
			continue
		}
		condition := strings.ReplaceAll(m[2], "$NUMBER", gcpserver.ProjectNumber)
		before := len(bound)
		for _, prefix := range regexp.MustCompile(`startsWith\('(.*?)'\)`).FindAllStringSubmatch(condition, -1) {
			bound = append(bound, gcpserver.Grant{Permissions: permissions, Prefix: prefix[1]})
		}
		for _, name := range regexp.MustCompile(`resource.name == '(.*?)'`).FindAllStringSubmatch(condition, -1) {
			bound = append(bound, gcpserver.Grant{Permissions: permissions, Name: name[1]})
		}
		if len(bound) == before {
			t.Errorf("condition %s", m[2])
		}
	}
	return bound
}

func policyOf(t *testing.T, b *gcpsecretmanager.GCPBackend, need secret.Access) string {
	t.Helper()
	policy, err := b.Policy(t.Context(), need)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// TestThePolicyIsEnoughAndNotTooMuch runs the whole suite under the printed policy, and
// compares what it grants with what was asked of the server.
func TestThePolicyIsEnoughAndNotTooMuch(t *testing.T) {
	t.Parallel()
	for _, conf := range []string{"Automatic", "Regional"} {
		if conf == "Regional" && !all() {
			continue
		}
		t.Run(conf, func(t *testing.T) {
			s, cfg := gcpserver.Start(t), configurations[conf].cfg
			b := open(t, s, cfg, gcpsecretmanager.Options{})
			policy := policyOf(t, b, secret.ReadWrite)
			s.Allow(grants(t, policy)...)
			secrettest.Run(t, func(t *testing.T) secret.SecretBackend { return open(t, s, cfg, gcpsecretmanager.Options{}) },
				secrettest.WithName(gcpsecretmanager.Name))
			for _, f := range b.Diagnose(t.Context(), secret.ReadWrite) {
				if f.Verdict == secret.Fail {
					t.Errorf("%+v", f)
				}
			}
			if conf == "Automatic" {
				wantUsed(t, s, policy)
			}
		})
	}
}

// wantUsed checks that each permission of a policy was asked for, and no other.
func wantUsed(t *testing.T, s *gcpserver.Server, policy string) {
	t.Helper()
	var asked, granted []string
	for _, c := range s.Calls() {
		asked = append(asked, c.Permission)
	}
	for _, g := range grants(t, policy) {
		granted = append(granted, g.Permissions...)
	}
	slices.Sort(asked)
	slices.Sort(granted)
	if asked = slices.Compact(asked); !slices.Equal(asked, granted) {
		t.Errorf("asked for  %v\ngranted are %v", asked, granted)
	}
}

func TestThePolicyToRead(t *testing.T) {
	t.Parallel()
	s, p, _ := fresh(t)
	b := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{})
	p.create()
	p.add("1")
	p.add("2")
	p.disable(2)
	policy := policyOf(t, b, secret.ReadOnly)
	s.Allow(grants(t, policy)...)
	s.Forget()
	if got, err := b.Get(t.Context(), key); err != nil || got != "1" {
		t.Errorf("Get: %q, %v", got, err)
	}
	if err := b.Probe(t.Context(), secret.ReadOnly); err != nil {
		t.Error(err)
	}
	for _, f := range b.Diagnose(t.Context(), secret.ReadOnly) {
		if f.Verdict == secret.Fail || f.Check == "versions" {
			t.Errorf("%+v", f)
		}
	}
	wantUsed(t, s, policy)
	s.Forget()
	if err := b.Set(t.Context(), key, "3"); !isOnly(t, err, secret.ErrDenied) {
		t.Errorf("Set: %v", err)
	}
	if err := b.Probe(t.Context(), secret.ReadWrite); !isOnly(t, err, secret.ErrDenied) {
		t.Errorf("Probe: %v", err)
	}
}

// The policy does not reach beyond the prefix.
func TestThePolicyEndsAtThePrefix(t *testing.T) {
	t.Parallel()
	s := gcpserver.Start(t)
	b := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{})
	s.Allow(grants(t, policyOf(t, b, secret.ReadWrite))...)
	for _, prefix := range []string{"other", "nexus-providers-too", "nexus-provider"} {
		other := open(t, s, gcpsecretmanager.Config{Prefix: prefix}, gcpsecretmanager.Options{})
		for op, err := range map[string]error{"get": second(other.Get(t.Context(), key)), "set": other.Set(t.Context(), key, "v")} {
			if !isOnly(t, err, secret.ErrDenied) {
				t.Errorf("%s below %s: %v", op, prefix, err)
			}
		}
	}
}

// What SECRET_REF_ALLOWED_PREFIXES allows the policy grants to read, and no more; and a
// diagnosis tells whether it is granted.
func TestThePolicyReadsReferences(t *testing.T) {
	t.Parallel()
	s := gcpserver.Start(t)
	cfg := gcpsecretmanager.Config{ReferencePrefixes: []string{"team-a", "nexus-providers__acme", "team-a__x", "shared"}}
	for _, prefix := range []string{"team-a", "team-a__crm", "team-ab", "shared"} {
		other := open(t, s, gcpsecretmanager.Config{Prefix: prefix}, gcpsecretmanager.Options{})
		if err := other.Set(t.Context(), "x", "value"); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, s, cfg, gcpsecretmanager.Options{})
	references := func() (verdicts []secret.Verdict) {
		for _, f := range b.Diagnose(t.Context(), secret.ReadOnly) {
			if f.Check == "references" {
				verdicts = append(verdicts, f.Verdict)
			}
		}
		return verdicts
	}
	plain := open(t, s, gcpsecretmanager.Config{}, gcpsecretmanager.Options{})
	s.Allow(grants(t, policyOf(t, plain, secret.ReadOnly))...)
	if got := references(); !slices.Equal(got, []secret.Verdict{secret.Warn, secret.Warn}) {
		t.Errorf("without the rights: %v", got)
	}
	for _, need := range []secret.Access{secret.ReadOnly, secret.ReadWrite} {
		s.Allow(grants(t, policyOf(t, b, need))...)
		for path, want := range map[string]error{"team-a__x": nil, "team-a__crm__x": nil, "shared__x": nil, "team-ab__x": secret.ErrDenied} {
			if _, err := b.ReadReference(t.Context(), secret.Reference{Path: path}); want == nil && err != nil || want != nil && !isOnly(t, err, want) {
				t.Errorf("%s: %v", path, err)
			}
		}
		if got := references(); !slices.Equal(got, []secret.Verdict{secret.Ok, secret.Ok}) {
			t.Errorf("with the rights: %v", got)
		}
	}
	s.Allow(gcpserver.Grant{Permissions: gcpsecretmanager.Permissions(secret.ReadOnly), Prefix: "projects/" + gcpserver.ProjectNumber + "/secrets/nexus-providers__"},
		gcpserver.Grant{Permissions: gcpsecretmanager.Permissions(secret.ReadOnly), Name: "projects/" + gcpserver.ProjectNumber + "/secrets/shared"})
	if got := references(); !slices.Equal(got, []secret.Verdict{secret.Warn, secret.Warn}) {
		t.Errorf("there is no secret shared: %v", got)
	}

	other := open(t, s, gcpsecretmanager.Config{ReferencePrefixes: []string{"projects/other-project/secrets/team-b"}}, gcpsecretmanager.Options{})
	if policy := policyOf(t, other, secret.ReadOnly); !strings.Contains(policy, "\nPROJECT=other-project\n") {
		t.Errorf("a prefix in another project needs a role there:\n%s", policy)
	}
	wrong := open(t, s, gcpsecretmanager.Config{ReferencePrefixes: []string{"team-a/x"}}, gcpsecretmanager.Options{})
	if _, err := wrong.Policy(t.Context(), secret.ReadOnly); !isOnly(t, err, secret.ErrInvalid) {
		t.Errorf("a prefix that is no path: %v", err)
	}
}

func TestTheDocumentHasThePolicies(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/gcp.md")
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, nil, gcpsecretmanager.Config{ProjectID: "my-project"}, gcpsecretmanager.Options{})
	for _, need := range []secret.Access{secret.ReadOnly, secret.ReadWrite} {
		if policy := policyOf(t, b, need); !strings.Contains(string(doc), "```sh\n"+policy+"```\n") {
			t.Errorf("docs/gcp.md does not have\n%s", policy)
		}
	}
}

func TestProbeNeverWrites(t *testing.T) {
	t.Parallel()
	s, _, b := fresh(t)
	for _, need := range []secret.Access{secret.ReadOnly, secret.ReadWrite} {
		if err := b.Probe(t.Context(), need); err != nil {
			t.Error(err)
		}
	}
	if got := methods(s); !slices.Equal(got, []string{"AccessSecretVersion", "AccessSecretVersion", "GetSecret", "ListSecretVersions"}) {
		t.Errorf("the calls are %v", got)
	}
	s.Forget()
	b.Diagnose(t.Context(), secret.ReadOnly)
	for _, c := range s.Calls() {
		if !strings.HasPrefix(c.Method, "Access") && !strings.HasPrefix(c.Method, "List") {
			t.Errorf("a diagnosis to read calls %s", c.Method)
		}
	}
}

func TestDiagnose(t *testing.T) {
	credentials(t, userCredentials)
	s, g := gcpserver.StartTLS(t), startGoogle(t)
	b := openTLS(t, s, g, "")
	checks := func() (list []string) {
		for _, f := range b.Diagnose(t.Context(), secret.ReadWrite) {
			list = append(list, f.Check+" "+string(f.Verdict))
			if (f.Advice == "") != (f.Verdict == secret.Ok) || f.Detail == "" {
				t.Errorf("%+v", f)
			}
			if strings.Contains(f.Detail+f.Advice, "base-token") {
				t.Errorf("it shows the token: %+v", f)
			}
		}
		return list
	}
	fine := []string{"login ok", "connection ok", "read ok", "create ok", "update ok", "remove version ok", "delete ok"}
	for range 2 { // it leaves nothing that disturbs the next
		if got := checks(); !slices.Equal(got, fine) {
			t.Errorf("in order: %q", got)
		}
	}
	for permission, want := range map[string][]string{
		"secretmanager.versions.access":  {"login ok", "connection ok", "read fail"},
		"secretmanager.secrets.create":   {"login ok", "connection ok", "read ok", "create fail"},
		"secretmanager.versions.add":     {"login ok", "connection ok", "read ok", "create fail"},
		"secretmanager.versions.disable": {"login ok", "connection ok", "read ok", "create ok", "update ok", "remove version fail", "delete ok"},
	} {
		less := slices.DeleteFunc(slices.Clone(gcpsecretmanager.Permissions(secret.ReadWrite)), func(p string) bool { return p == permission })
		s.Allow(gcpserver.Grant{Permissions: less})
		if got := checks(); !slices.Equal(got, want) {
			t.Errorf("without %s: %q", permission, got)
		}
	}
	s.AllowAll()
	s.Down()
	// Whether it is the connection or the reading depends on what the client has noticed.
	if got := checks(); got[0] != "login ok" || !strings.HasSuffix(got[len(got)-1], " fail") || len(got) > 3 {
		t.Errorf("down: %q", got)
	}
}
