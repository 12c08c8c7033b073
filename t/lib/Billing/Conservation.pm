# Every unit is accounted for: what PostgreSQL holds against what its rows say went in and out, exactly, for each account and period.
# Owner: tests that spend; Billing::Test asks at the end of each end-to-end test.
package Billing::Conservation;
use v5.36;
use Exporter qw(import);
our @EXPORT_OK = qw(credits_astray overage_astray quotas_astray stock_astray);

# Balances that are not what their ledger tells, a line each; none where all is well.
# have: remaining less overage; told: the sum of all movements, less what lapsed. used: of this period; spent: what its rows took.
# due: overage of all periods that is charged for, or still open; beyond: what the rows took of it and did not give back.
sub credits_astray($dbh) {
    my $rows = $dbh->selectall_arrayref(<<'END', {Slice => {}});
        SELECT a.external_id, t.credit_key, b.remaining - b.overage AS have, l.told, b.used, l.spent, b.overage, l.over,
            b.overage - b.charged + c.charged AS due, l.beyond
        FROM billing.credit_balances b JOIN billing.accounts a ON a.id = b.account_id JOIN billing.credit_types t USING (credit_no)
        CROSS JOIN LATERAL (SELECT
            coalesce(sum(l.quantity - coalesce((l.metadata ->> 'lapsed')::bigint, 0) + coalesce((l.metadata ->> 'overage')::bigint, 0)), 0) AS told,
            coalesce(-sum(l.quantity - coalesce((l.metadata ->> 'over')::bigint, 0))
                FILTER (WHERE l.action IN ('deduct', 'refund') AND l.period_seq = b.period_seq), 0) AS spent,
            coalesce(-sum(CASE l.action WHEN 'overage' THEN l.quantity ELSE (l.metadata ->> 'over')::bigint END)
                FILTER (WHERE l.action IN ('overage', 'refund') AND l.period_seq = b.period_seq), 0) AS over,
            coalesce(sum(-l.quantity) FILTER (WHERE l.action = 'overage'), 0)
                - coalesce(sum((l.metadata ->> 'over')::bigint) FILTER (WHERE l.action = 'refund'), 0) AS beyond
            FROM billing.credit_ledger l WHERE l.account_id = b.account_id AND l.credit_no = b.credit_no) l
        CROSS JOIN LATERAL (SELECT coalesce(sum(u.quantity), 0) AS charged FROM billing.usage_charges u
            WHERE u.account_id = b.account_id AND u.credit_no = b.credit_no) c
        WHERE b.remaining - b.overage <> l.told OR b.used <> l.spent OR b.overage <> l.over
            OR b.overage - b.charged + c.charged <> l.beyond ORDER BY 1, 2
END
    return map { my $row = $_; join ' ', map { "$_=$row->{$_}" } sort keys %$row } @$rows;
}

# Periods of quotas whose overage is not charged for exactly once, a line each. charged: what the row says is; rows: what the charges say.
# open: overage that nobody has charged for, though the row is not among those that will be.
sub overage_astray($dbh) {
    my $rows = $dbh->selectall_arrayref(<<'END', {Slice => {}});
        SELECT a.external_id, l.limit_key, q.period, q.charged, c.quantity AS rows, greatest(0, q.used - q.charged - q.spared) AS open
        FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id JOIN billing.limits l USING (limit_no)
        CROSS JOIN LATERAL (SELECT coalesce(sum(u.quantity), 0) AS quantity, coalesce(bool_and(u.from_unit = u.before), true) AS whole FROM (
            SELECT u.*, coalesce(sum(u.quantity) OVER (ORDER BY u.from_unit ROWS UNBOUNDED PRECEDING EXCLUDE CURRENT ROW), 0) AS before
            FROM billing.usage_charges u WHERE u.account_id = q.account_id AND u.limit_no = q.limit_no AND u.period_seq = q.period) u) c
        WHERE q.charged <> c.quantity OR NOT c.whole OR (q.used - q.charged > q.spared) <> (q.overage_ends IS NOT NULL) ORDER BY 1, 2, 3
END
    return map { my $row = $_; join ' ', map { "$_=$row->{$_}" } sort keys %$row } @$rows;
}

# Quotas of which something is missing, or was made of nothing, a line each; for when all hosts have stopped. What hosts returned is out of
# issued and what they spent is in used, so what is left between the two is forfeited: nothing, but up to $allowed->{account} of each
# quota, over all its periods, where a test took it from them ('*': of every account). Used is never more than issued.
sub quotas_astray($dbh, $allowed = {}) {
    my $rows = $dbh->selectall_arrayref(<<'END', {Slice => {}});
        SELECT a.external_id, l.limit_key, sum(q.issued) AS issued, sum(q.used) AS used, sum(q.issued - q.used) AS forfeited,
            min(q.issued - q.used) AS least, min(least(q.issued, q.used, q.late, q.issued - q.late, q.used - q.late)) AS negative,
            coalesce(string_agg(q.period || ': ' || q.issued || '-' || q.used, ', ' ORDER BY q.period) FILTER (WHERE q.issued <> q.used), '') AS periods
        FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id JOIN billing.limits l USING (limit_no)
        GROUP BY 1, 2 HAVING bool_or(q.issued <> q.used OR least(q.issued, q.used, q.late, q.issued - q.late, q.used - q.late) < 0) ORDER BY 1, 2
END
    my $bound = sub ($account) { ($allowed->{$account} // 0) + ($allowed->{'*'} // 0) };
    my @astray = grep { $_->{least} < 0 || $_->{negative} < 0 || $_->{forfeited} > $bound->($_->{external_id}) } @$rows;
    return map { my $row = $_; join ' ', map { "$_=$row->{$_}" } sort keys %$row } @astray;
}

# Levels of stock that are not what their rows tell. current: the sum of what the ledger says was made and removed; reserved: the
# sum of what is held.
sub stock_astray($dbh) {
    my $rows = $dbh->selectall_arrayref(<<'END', {Slice => {}});
        SELECT a.external_id, s.stock_key, x.current, x.told, x.reserved, x.held FROM (
            SELECT k.account_id, k.stock_no, coalesce(l.current, 0) AS current, coalesce(l.reserved, 0) AS reserved,
                (SELECT coalesce(sum(g.quantity), 0) FROM billing.stock_ledger g WHERE g.account_id = k.account_id AND g.stock_no = k.stock_no) AS told,
                (SELECT coalesce(sum(h.quantity), 0) FROM billing.stock_holds h WHERE h.account_id = k.account_id AND h.stock_no = k.stock_no) AS held
            FROM (SELECT account_id, stock_no FROM billing.stock_levels UNION SELECT account_id, stock_no FROM billing.stock_ledger
                  UNION SELECT account_id, stock_no FROM billing.stock_holds) k
            LEFT JOIN billing.stock_levels l USING (account_id, stock_no)) x
        JOIN billing.accounts a ON a.id = x.account_id JOIN billing.stocks s USING (stock_no)
        WHERE x.current <> x.told OR x.reserved <> x.held ORDER BY 1, 2
END
    return map { my $row = $_; join ' ', map { "$_=$row->{$_}" } sort keys %$row } @$rows;
}

1;
