"""The deep part of the app: claims, leases, outcomes, slots, the watch."""
