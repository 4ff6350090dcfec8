//! What every enforcer that judges single packets must say of them: the TC program and the user-space filter.
//!
//! A case is a function over a [`Judge`], in the module of its subject. [`suite!`] makes a `#[test]` of each, in the crate of the
//! enforcer. What only one of them knows, such as Ethernet or a clock that is an argument, is tested there.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "tests alone use it, end where it fails, and are told by their names"
)]

pub mod counters;
pub mod flows;
pub mod fragments;
pub mod garbage;
pub mod model;
pub mod packet;
pub mod pins;
pub mod policies;
pub mod refusal;
pub mod rules;
pub mod table;
pub mod told;

use std::net::IpAddr;

use lattice_policy::{Counter, Direction, Flow, Pin, Reason, RuleId, Table};

/// An enforcer that is attached to nothing. It checks of every packet that what becomes of it fits the reason.
pub trait Judge: Sized {
    /// The index of the link on which its packets are said to be.
    const LINK: u32;

    /// For a sandbox with these addresses, without a policy.
    fn with_own(own: &[IpAddr]) -> Self;

    /// Puts a policy in force.
    fn apply_with(&mut self, table: &Table, pins: &[Pin], generation: u32);

    /// Adds pins to the policy in force.
    fn pin(&mut self, pins: &[Pin]);

    /// Judges a packet, which begins with its IP header.
    fn judge(&mut self, direction: Direction, packet: &[u8]) -> Reason;

    /// What the sender of an egress packet is told, which must be denied.
    fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>>;

    /// The verdicts since it was last asked, oldest first.
    fn told(&mut self) -> Vec<Flow>;

    /// What each rule of the policy in force has decided about, by the number of the rule.
    fn counters(&self) -> Vec<(RuleId, Counter)>;

    /// For [`packet::OWN4`] and [`packet::OWN6`].
    fn new() -> Self {
        Self::with_own(&[packet::OWN4.into(), packet::OWN6.into()])
    }

    /// [`Judge::new`] with a policy.
    fn with(table: &Table) -> Self {
        let mut judge = Self::new();
        judge.apply(table, 1);
        judge
    }

    /// Puts a policy without pins in force.
    fn apply(&mut self, table: &Table, generation: u32) {
        self.apply_with(table, &[], generation);
    }

    /// Judges a packet of the agent's.
    fn egress(&mut self, packet: &[u8]) -> Reason {
        self.judge(Direction::Egress, packet)
    }

    /// Judges a packet for the agent.
    fn ingress(&mut self, packet: &[u8]) -> Reason {
        self.judge(Direction::Ingress, packet)
    }
}

/// A `#[test]` for each case, on the [`Judge`] of this type.
#[macro_export]
macro_rules! suite {
    ($judge:ty) => {
        $crate::suite! { $judge:
            counters:
                packets_of_a_flow_are_counted_for_the_rule_that_let_it_in
                denied_packets_are_counted_for_the_rule_or_for_none
                a_new_policy_begins_at_nothing_and_flows_go_on_under_their_new_rule;
            flows:
                replies_pass_and_openers_are_judged
                other_icmp_is_no_echo
                icmp_errors_pass_only_about_allowed_flows
                an_error_goes_to_the_address_it_is_about
                a_scan_pushes_no_allowed_flow_out;
            fragments:
                later_fragments_follow_their_first;
            garbage:
                nothing_passes_an_empty_policy;
            model:
                it_decides_as_the_table_says;
            pins:
                a_pin_opens_only_what_no_rule_denies
                a_pin_for_everything_opens_only_what_no_rule_denies
                the_end_of_a_pin_ends_no_flow
                the_last_pin_of_an_address_counts_as_a_whole
                a_policy_has_no_pins_but_its_own;
            policies:
                nothing_passes_before_a_policy
                the_first_policy_is_whole_whatever_came_before
                a_new_policy_is_in_force_at_the_next_packet
                a_flow_is_judged_anew_as_it_was_opened
                a_flow_that_stays_belongs_to_the_rule_of_the_new_policy;
            refusal:
                tcp_is_reset
                udp_and_ping_are_told_that_it_is_prohibited
                nobody_is_answered_who_must_not_be;
            rules:
                rules_decide_by_prefix_protocol_and_port
                a_range_without_ports_fits_nothing
                what_a_rule_denies_is_denied_again
                only_known_protocols_and_own_addresses
                malformed_packets_are_denied
                extension_headers_are_walked_but_never_rerouted;
            told:
                each_new_flow_is_told_and_a_denied_one_once_a_second
                what_cannot_be_read_is_told_as_far_as_it_was_read;
        }
    };
    ($judge:ty: $($subject:ident: $($case:ident)+;)+) => {$(
        mod $subject {$(
            #[test]
            fn $case() {
                $crate::$subject::$case::<$judge>();
            }
        )+}
    )+};
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_suite_has_every_case() {
        let suite = include_str!("lib.rs");
        let mut cases = 0;
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            for line in text.lines().filter(|line| line.ends_with("<J: Judge>() {")) {
                let name = line.trim_start_matches("pub fn ").split('<').next().unwrap();
                let listed = |line: &str| line.trim().trim_end_matches(';') == name;
                assert!(suite.lines().any(listed), "{name}");
                cases += 1;
            }
        }
        assert!(cases > 0);
    }
}
