//! Values that the tests render with.

/// As it ships.
pub const DEFAULT: &str = "";

/// A credential whose secret is mounted, and a session.
pub const CONFIG: &str = "
config:
  credentials:
    github: {preset: github, source: {mounted: {volume: /var/run/secrets/attache/github, file: token}}}
  sessions: [{name: agent, credentials: [github], access_mode: read-only}]
sources: {mounted: [{name: github, secretName: github}]}
networkPolicy: {agents: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: agents}}}]}
";

/// Every option, in the shape for Envoys elsewhere.
pub const FULL: &str = "
shape: mesh
replicas: 1
image: {repository: images.example.com/attache-broker, tag: 0.1.0, digest: \"sha256:47deb610c6a53cf1c5e2e2c9b2a2a9c8a9d6a3a5a7b1a8a0f2f3f4f5f6f7f8f9\", pullPolicy: Always}
imagePullSecrets: [{name: images}]
config:
  state: {seal: {env: ATTACHE_SEAL_KEY}}
  sources:
    kubernetes: {refresh: 1m}
  credentials:
    github: {preset: github, source: {mounted: {volume: /var/run/secrets/attache/github, file: token}}}
    openai: {preset: openai, source: {kubernetes: {secret: openai, key: key}}}
  sessions: [{name: agent, credentials: [github, openai]}]
  audit: {export: [{stdout: json}]}
sources:
  mounted: [{name: github, secretName: github}]
  env: [{name: ATTACHE_SEAL_KEY, secretName: attache-seal, key: key}]
  files: [{name: bao-ca, configMapName: bao-ca}]
  tokens: [{name: openbao, audience: openbao}]
  kubernetes: {namespace: agents, secrets: [openai]}
dataPlane:
  tls:
    secretName: attache-broker-tls
    certManager:
      enabled: true
      issuer: {group: cert-manager.io, kind: ClusterIssuer, name: mesh}
      trustDomain: example.org
      duration: 12h
      renewBefore: 4h
  peers:
    - {id: \"spiffe://example.org/ns/attache-egress/sa/attache-egress\"}
    - {id: \"spiffe://example.org/ns/agents/sa/reviewer\", sessions: [agent]}
persistence: {size: 8Gi, storageClassName: fast, accessMode: ReadWriteOncePod}
networkPolicy:
  gateways:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: attache-egress}}
      podSelector: {matchLabels: {app: egress}}
  apiServer: {cidrs: [10.0.0.1/32], port: 6443}
  egress:
    - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: openbao}}}]
      ports: [{protocol: TCP, port: 8200}]
podDisruptionBudget: {maxUnavailable: 0}
serviceMonitor: {enabled: true, labels: {release: prometheus}, interval: 15s}
prometheusRule: {enabled: true, labels: {release: prometheus}}
serviceAccount: {annotations: {example.com/role: attache}}
log: debug
resources: {requests: {cpu: 100m}, limits: {memory: 512Mi}}
terminationGracePeriodSeconds: 45
pod:
  labels: {team: platform}
  annotations: {example.com/note: \"yes\"}
  nodeSelector: {kubernetes.io/os: linux}
  tolerations: [{key: dedicated, operator: Equal, value: attache, effect: NoSchedule}]
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a]}]}]}}}
  priorityClassName: system-cluster-critical
";

/// Nobody is let in, nobody is asked, nothing is kept.
pub const BARE: &str = "
shape: gateway
networkPolicy: {gateways: [], agents: [], prometheus: [], dns: [], upstreams: []}
persistence: {enabled: false}
podDisruptionBudget: {enabled: false}
";

/// A config of somebody's own.
pub const EXISTING: &str = "
shape: forward-proxy
existingConfig: {secret: attache-config, key: config.yaml}
persistence: {existingClaim: kept}
networkPolicy: {enabled: false}
";

/// All of them, by a name.
pub fn all() -> Vec<(&'static str, String)> {
    let own = |shape: &str| format!("shape: {shape}\n{CONFIG}");
    vec![
        ("default", DEFAULT.to_owned()),
        ("full", FULL.to_owned()),
        ("full, with an Envoy", FULL.replace("shape: mesh", "shape: gateway")),
        ("bare", BARE.to_owned()),
        ("existing", EXISTING.to_owned()),
        ("mesh", own("mesh")),
        ("gateway", own("gateway")),
        ("forward-proxy", own("forward-proxy")),
        ("the example", crate::tools::read("envoy/helm/examples/gateway.values.yaml")),
    ]
}
