package gcpsecretmanager

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nexus-broker/nexus-broker/secret"
)

// Permissions returns what IAM has to grant for need: create on the project, all others
// on the secrets below the prefix.
func Permissions(need secret.Access) []string {
	if need == secret.ReadOnly {
		return []string{"secretmanager.versions.access", "secretmanager.versions.list"}
	}
	return []string{
		createPermission,
		"secretmanager.secrets.delete",
		"secretmanager.secrets.get",
		"secretmanager.secrets.update",
		"secretmanager.versions.access",
		"secretmanager.versions.add",
		"secretmanager.versions.destroy",
		"secretmanager.versions.disable",
		"secretmanager.versions.list",
	}
}

// createPermission is checked on the project: the secret is not there yet.
const createPermission = "secretmanager.secrets.create"

// Policy implements [secret.PolicyWriter]: gcloud commands that make custom roles and
// bind them to the broker's service account, on the secrets below the prefix only. IAM
// wants the project's number in such a condition, and evaluates it for the creation of a
// secret on the project's own name, which has no prefix: that right is bound to the
// whole project, in a role of its own. It makes nothing but empty secrets. A third role,
// bound in the project of each prefix of references, reads what lies there.
func (b *GCPBackend) Policy(_ context.Context, need secret.Access) (string, error) {
	role, title := "nexusBrokerReadWrite", "nexus-broker: read and write"
	if need == secret.ReadOnly {
		role, title = "nexusBrokerReadOnly", "nexus-broker: read"
	}
	var below []string
	create := false
	for _, p := range Permissions(need) {
		if create = create || p == createPermission; p != createPermission {
			below = append(below, p)
		}
	}
	account := b.account
	if account == "" {
		account = "nexus-broker@" + b.project + ".iam.gserviceaccount.com"
	}
	within := ""
	if b.location != "" {
		within = "/locations/" + b.location
	}
	var s strings.Builder
	fmt.Fprintf(&s, "PROJECT=%s\nACCOUNT=%s\n", b.project, account)
	s.WriteString("NUMBER=$(gcloud projects describe \"$PROJECT\" --format='value(projectNumber)')\n\n")
	fmt.Fprintf(&s, "gcloud iam roles create %s --project=\"$PROJECT\" --stage=GA \\\n  --title='%s' \\\n  --permissions=%s\n",
		role, title, strings.Join(below, ","))
	fmt.Fprintf(&s, "gcloud projects add-iam-policy-binding \"$PROJECT\" \\\n  --member=\"serviceAccount:$ACCOUNT\" --role=\"projects/$PROJECT/roles/%s\" \\\n", role)
	fmt.Fprintf(&s, "  --condition=\"title=%s,expression=resource.name.startsWith('projects/$NUMBER%s/secrets/%s')\"\n", b.prefix, within, b.prefix+separator)
	if create {
		fmt.Fprintf(&s, "\ngcloud iam roles create nexusBrokerCreate --project=\"$PROJECT\" --stage=GA \\\n  --title='nexus-broker: create' \\\n  --permissions=%s\n", createPermission)
		s.WriteString("gcloud projects add-iam-policy-binding \"$PROJECT\" \\\n  --member=\"serviceAccount:$ACCOUNT\" --role=\"projects/$PROJECT/roles/nexusBrokerCreate\" \\\n  --condition=None\n")
	}
	places, err := secret.ReferencePlaces(b, b.references)
	if err != nil {
		return "", fmt.Errorf("%s: policy: a prefix of references: %w", Name, err)
	}
	b.writeReferences(&s, within, places)
	return s.String(), nil
}

// writeReferences writes the commands for the places of references, one project after the
// other: a custom role belongs to a project.
func (b *GCPBackend) writeReferences(s *strings.Builder, within string, places [][]string) {
	made, current := map[string]bool{}, b.project
	slices.SortStableFunc(places, func(a, b []string) int { return strings.Compare(a[1], b[1]) })
	for _, place := range places {
		project := place[1]
		if project != current {
			fmt.Fprintf(s, "\nPROJECT=%s\nNUMBER=$(gcloud projects describe \"$PROJECT\" --format='value(projectNumber)')\n", project)
			current = project
		}
		if !made[project] {
			fmt.Fprintf(s, "\ngcloud iam roles create nexusBrokerReferences --project=\"$PROJECT\" --stage=GA \\\n  --title='nexus-broker: read references' \\\n  --permissions=%s\n",
				strings.Join(Permissions(secret.ReadOnly), ","))
			made[project] = true
		}
		_, id := b.referencePlace(place)
		name := "projects/$NUMBER" + within + "/secrets/" + id
		s.WriteString("gcloud projects add-iam-policy-binding \"$PROJECT\" \\\n  --member=\"serviceAccount:$ACCOUNT\" --role=\"projects/$PROJECT/roles/nexusBrokerReferences\" \\\n")
		fmt.Fprintf(s, "  --condition=\"title=%s,expression=resource.name == '%s' || resource.name.startsWith('%s/') || resource.name.startsWith('%s')\"\n",
			id, name, name, name+separator)
	}
}

// referencePlace returns a place of references as the name of what its secrets lie in and
// the id that is theirs, or that theirs begin with.
func (b *GCPBackend) referencePlace(place []string) (parent, id string) {
	at := strings.Count(b.parent(), "/") + 1
	return strings.Join(place[:at], "/"), strings.Join(place[at+1:], separator)
}
