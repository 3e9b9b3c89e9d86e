{{/* One name for all: the service account is part of the broker's identity. */}}
{{- define "attache.name" -}}attache-broker{{- end -}}

{{- define "attache.selector" -}}
app.kubernetes.io/name: attache
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: broker
{{- end -}}

{{- define "attache.labels" -}}
{{ include "attache.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "attache.image" -}}
{{- $image := .image -}}
{{- $tag := $image.tag | default .tag -}}
{{- printf "%s:%s" $image.repository $tag -}}{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* Is an Envoy in the pod? */}}
{{- define "attache.envoy" -}}{{- if ne .Values.shape "mesh" }}yes{{ end -}}{{- end -}}

{{/* What cannot be said in values.schema.json. */}}
{{- define "attache.vet" -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail "replicas: one broker holds the SQLite database and the audit log, and a second one would be refused its lock. Write 1 (0 while you restore its volume); more than one comes with Postgres." -}}
{{- end -}}
{{- range $owned := list "instance" "state_dir" "listen" -}}
{{- if hasKey $.Values.config $owned -}}
{{- fail (printf "config.%s: the chart writes it, for it depends on the pod. Leave it out, or bring a whole attache.yaml by existingConfig." $owned) -}}
{{- end -}}
{{- end -}}
{{- $own := or .Values.existingConfig.configMap .Values.existingConfig.secret -}}
{{- if and .Values.existingConfig.configMap .Values.existingConfig.secret -}}
{{- fail "existingConfig: name a configMap or a secret, not both." -}}
{{- end -}}
{{- if and $own .Values.config -}}
{{- fail "config and existingConfig: one attache.yaml, from one of them." -}}
{{- end -}}
{{- if and .Values.networkPolicy.enabled .Values.sources.kubernetes.secrets (not .Values.networkPolicy.apiServer.cidrs) -}}
{{- fail "networkPolicy.apiServer.cidrs: sources.kubernetes asks the API server, and the policy lets nobody reach it. Write its addresses: kubectl get endpoints kubernetes." -}}
{{- end -}}
{{- if not (or $own (include "attache.envoy" .) .Values.dataPlane.peers) -}}
{{- fail "dataPlane.peers: who may ask? Name at least one: {id: \"spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME\"}." -}}
{{- end -}}
{{- if and .Values.podDisruptionBudget.enabled (gt (int .Values.podDisruptionBudget.maxUnavailable) 1) -}}
{{- fail "podDisruptionBudget.maxUnavailable: of one broker 1 can be away, or 0." -}}
{{- end -}}
{{- end -}}

{{/* attache.yaml, as the broker reads it. */}}
{{- define "attache.config" -}}
{{- $listen := dict "health" "0.0.0.0:3033" -}}
{{- if include "attache.envoy" . -}}
{{- $_ := set $listen "proxy" "0.0.0.0:3030" -}}
{{- $_ := set $listen "data_plane" "unix:/run/attache/envoy/own/data-plane.sock" -}}
{{- else -}}
{{- $tls := dict "certificate" "/etc/attache/tls/tls.crt" "key" "/etc/attache/tls/tls.key" "client_ca" "/etc/attache/tls/ca.crt" -}}
{{- $_ := set $listen "data_plane" (dict "address" "0.0.0.0:3031" "tls" $tls "peers" .Values.dataPlane.peers) -}}
{{- end -}}
{{- toYaml (merge (dict "listen" $listen) .Values.config) -}}
{{- end -}}

{{- define "attache.contained" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 101
runAsGroup: 101
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}
