//! Commands that administer the control plane.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::Format;

/// Access to the control plane's administration.
#[derive(Debug, ClapArgs)]
pub(crate) struct Admin {
    /// The control plane [default: the one of `lattice login`, else http://localhost:8080]
    #[arg(long, env = "LATTICE_SERVER_URL", value_name = "URL")]
    pub(crate) server_url: Option<String>,
    /// The authority that certifies the server, in PEM, when it is not a public one
    #[arg(long, env = "LATTICE_SERVER_CA", value_name = "FILE")]
    pub(crate) server_ca: Option<PathBuf>,
    /// File with an API token, instead of the one of `lattice login`; see also LATTICE_ADMIN_TOKEN
    #[arg(long, env = "LATTICE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Login {
    /// The control plane
    #[arg(long, env = "LATTICE_SERVER_URL", default_value = "http://localhost:8080", value_name = "URL")]
    pub(crate) server_url: String,
    /// The authority that certifies the server, in PEM, when it is not a public one
    #[arg(long, env = "LATTICE_SERVER_CA", value_name = "FILE")]
    pub(crate) server_ca: Option<PathBuf>,
    /// File with the one-time token that latticed wrote, or with an API token; '-' is stdin
    /// [default: LATTICE_ADMIN_TOKEN, else /var/lib/latticed/admin-token]
    #[arg(long, visible_alias = "admin-token-file", env = "LATTICE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Name of the API token in lists [default: user@host]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// What a holder of an API token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Reads
    Viewer,
    /// Also changes tokens, peers and policies
    Operator,
    /// Also workspaces, API tokens and security events
    Admin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AdminTokenCommand {
    /// Make an API token and print it, once
    Create {
        /// For whom it is
        name: String,
        /// What its holder may do
        #[arg(long, value_enum)]
        role: Role,
        /// The only workspace that it is for, by name or id
        #[arg(short, long)]
        workspace: Option<String>,
        /// How long it is valid, such as 8h or 30d [default: until it is revoked]
        #[arg(short = 'e', long, value_name = "TIME")]
        ttl: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// List API tokens, without their secrets
    List {
        #[command(flatten)]
        admin: Admin,
    },
    /// Make an API token open nothing any more
    Revoke {
        /// Its id: the part after la-
        id: String,
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// Make a workspace
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// List workspaces
    List {
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an enrollment token and print it, once
    Create(Box<TokenCreate>),
    /// List enrollment tokens, without their secrets
    List {
        /// Only those of this workspace
        #[arg(short, long)]
        workspace: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Show an enrollment token, without its secret
    Show {
        /// Its id: the part after lt-
        id: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Make an enrollment token admit nobody any more
    Revoke {
        /// Its id: the part after lt-
        id: String,
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TokenCreate {
    /// Workspace that it admits to, by name or id
    #[arg(short, long, default_value = "default")]
    pub(crate) workspace: String,
    /// How many peers it admits
    #[arg(short = 'l', long, default_value_t = 1, value_name = "N")]
    pub(crate) uses: u32,
    /// How long it is valid: seconds, or with m, h, d
    #[arg(short = 'e', long, default_value = "24h", value_name = "TIME")]
    pub(crate) ttl: String,
    /// Preset of the peers that it admits: sandboxed, coordinator or isolated
    #[arg(long)]
    pub(crate) preset: Option<lattice_policy::Preset>,
    /// Label of the peers that it admits, repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// The names that it admits begin so
    #[arg(long, value_name = "PREFIX")]
    pub(crate) name_prefix: Option<String>,
    /// How long a peer that it admits lives unless it is renewed, such as 1h or 7d
    #[arg(long, value_name = "TIME")]
    pub(crate) peer_ttl: Option<String>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PeerCommand {
    /// List peers
    List {
        /// Only those of this workspace
        #[arg(short, long)]
        workspace: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Show a peer
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Set and remove labels of a peer; policies choose peers by them
    Label {
        /// Its id
        id: String,
        /// KEY=VALUE sets a label, KEY- removes it
        #[arg(required = true, value_name = "LABEL")]
        labels: Vec<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Remove a peer: it leaves every map, its address becomes free after a while
    Remove {
        /// Its id
        id: String,
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Make a named policy for the peers of a workspace that a selector chooses
    Add(Box<PolicyAdd>),
    /// List named policies
    List {
        /// Only those of this workspace
        #[arg(short, long)]
        workspace: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Show a named policy
    Show {
        /// Its name
        name: String,
        /// Workspace that it is in
        #[arg(short, long, default_value = "default")]
        workspace: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Remove a named policy
    Remove {
        /// Its name
        name: String,
        /// Workspace that it is in
        #[arg(short, long, default_value = "default")]
        workspace: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Say what becomes of a flow, which rule decides, of which policy, and why
    Explain(Box<PolicyExplain>),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PolicyAdd {
    /// Its name: letters a-z, digits and '-'
    pub(crate) name: String,
    /// Workspace that it is for, by name or id
    #[arg(short, long, default_value = "default")]
    pub(crate) workspace: String,
    /// Which peers it is for, such as role=agent,tier!=db; without it, all
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) selector: lattice_policy::Selector,
    /// What they may reach, [proto:]target[:ports], repeatable; the target is a network, a DNS name or {selector}
    #[arg(long, value_name = "RULE")]
    pub(crate) allow_egress: Vec<lattice_policy::NamedRule>,
    /// What they may not reach, whoever allows it; a DNS name is not resolved for them
    #[arg(long, value_name = "RULE")]
    pub(crate) deny_egress: Vec<lattice_policy::NamedRule>,
    /// Who may reach them; the ports are theirs
    #[arg(long, value_name = "RULE")]
    pub(crate) allow_ingress: Vec<lattice_policy::NamedRule>,
    /// Who may not reach them, whoever allows it
    #[arg(long, value_name = "RULE")]
    pub(crate) deny_ingress: Vec<lattice_policy::NamedRule>,
    /// For people
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) description: String,
    /// After how long it ends by itself, such as 1h
    #[arg(long, value_name = "TIME")]
    pub(crate) ttl: Option<String>,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// The peer opens the flow
    Egress,
    /// Somebody opens the flow to the peer
    Ingress,
}

#[derive(Debug, ClapArgs)]
#[command(allow_missing_positional = true)]
pub(crate) struct PolicyExplain {
    /// Name of the peer whose policy is asked
    #[arg(long, alias = "peer", value_name = "NAME")]
    pub(crate) from: String,
    /// Workspace that it is in
    #[arg(short, long, default_value = "default")]
    pub(crate) workspace: String,
    /// A flag with which its sandbox runs, repeatable
    #[arg(long, value_name = "RULE")]
    pub(crate) egress_allow: Vec<String>,
    /// Which way the flow is opened
    #[arg(value_enum, default_value = "egress")]
    pub(crate) way: Way,
    /// [PROTO:]ADDRESS:PORT or [PROTO:]NAME:PORT of the other end (egress), or its address and the peer's own port (ingress);
    /// tcp unless said; icmp has no port
    #[arg(value_name = "DESTINATION")]
    pub(crate) flow: String,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List security events, newest first
    List {
        /// Only those of this workspace
        #[arg(short, long)]
        workspace: Option<String>,
        #[command(flatten)]
        admin: Admin,
    },
}
