# What must be true after a run, whatever was done to the hosts and to PostgreSQL: an account's own record of what it got, against what PostgreSQL
# says was issued, used and taken. A bound is computed from the faults that were played; without them it is exact. Q1, U2, K1-K5.
# Owner: Billing::Model.
package Billing::ModelCheck;
use v5.36;
use Billing::ModelPlan qw(%costs %quotas @accounts);
use List::Util qw(sum0 min max first);

my $window = 60;    # seconds of the sliding quota, and of the minute

sub new($class, $run) { return bless {run => $run, world => $run->world, attempts => $run->{attempts}, faults => $run->{faults}, problems => []}, $class }
sub problems($self) { $self->{problems}->@* }
sub wrong($self, $what) { push $self->{problems}->@*, $what; return }
sub at_most($self, $less, $more, $what) { $self->wrong("$what: $less, but at most $more") if $less > $more; return }

# Units of quota or credit `key` that attempts of the account asked for, as far as `which` says.
sub units($self, $account, $key, $which) { return sum0 map { $costs{$_->{location}}{$key} // 0 } grep { $_->{account} eq $account && $which->($_) } $self->{attempts}->@* }
sub got($attempt) { return $attempt->{status} == 200 }
sub unknown($attempt) { return $attempt->{status} == 0 }
sub of_kind($self, @kinds) { my %kind = map { $_ => 1 } @kinds; return grep { $kind{$_->{kind}} } $self->{faults}->@* }

# What a dead host may not have told: of its answers since it had told for certain.
sub untold($self, $account, $key, $fault, $which) {
    return $self->units($account, $key, sub ($it) { $it->{host} == $fault->{host} && $it->{replied} >= $fault->{since} && $it->{sent} <= $fault->{at} + 1 && $which->($it) });
}

# The most that a worker takes beyond what its requests need.
sub take($self, $account, $quota) { my $cap = $self->{run}{cap}{$account}{$quota}; return $cap < 512 ? 0 : int $cap / 8 }

# Units that were issued and can be nowhere any more.
sub forfeits($self, $account, $quota) {
    my ($bound, $take) = (0, $self->take($account, $quota));
    for my $fault ($self->of_kind('kill_host')) {    # what both workers held, what went back to them, and what they had not told
        $bound += 2 * $take + $self->untold($account, $quota, $fault, \&got)
            + $self->units($account, $quota, sub ($it) { $it->{host} == $fault->{host} && $it->{sent} <= $fault->{at} + 1 && !got($it) });
    }
    $bound += $take for $self->of_kind('kill_worker');       # on its way to it
    $bound += 4 * $take for $self->of_kind('postgres');      # on their way to four
    $bound += sum0 $self->{run}{forfeited}->@*;              # as the hosts say themselves: of a record that a dead worker was writing
    $bound += $self->units($account, $quota, sub ($it) { unknown($it) || $it->{status} >= 500 }) if $self->of_kind(qw(postgres kill_worker));
    return $bound;
}
sub forfeits_of_all($self, $account) { return max map { $self->forfeits($account, $_) } keys %quotas }

sub compare($self) {
    for my $account (@accounts) {
        $self->quota_of($account, $_) for sort keys %quotas;
        $self->credit_of($account, $_) for qw(logo mockup);
    }
    $self->windows;
    $self->refusals;
    $self->ledger;
    return;
}

# granted <= issued <= the largest cap that was in force, by what clients got alone, and by PostgreSQL's rows; used is what was granted.
sub quota_of($self, $account, $quota) {
    my $cap = $self->{run}{cap}{$account}{$quota};
    my @rows = $self->{world}->sql(q{SELECT q.period, q.issued, q.used, q.late FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
        JOIN billing.limits l USING (limit_no) WHERE a.external_id = ? AND l.limit_key = ? ORDER BY q.period}, $account, $quota);
    my $name = "$account, $quota";
    $self->at_most($_->{issued}, $cap, "$name: issued in period $_->{period}") for @rows;
    $self->wrong("$name: period $_->{period} has used $_->{used} of $_->{issued} issued, $_->{late} late") for grep { $_->{used} > $_->{issued} || $_->{used} < 0 || $_->{late} } @rows;
    my ($used, $issued) = (sum0(map { $_->{used} } @rows), sum0(map { $_->{issued} } @rows));
    my $acked = $self->units($account, $quota, \&got) + ($self->{spent}{$account}{$quota} // 0);
    my $lost = sum0($self->{run}{forfeited}->@*, map { $self->untold($account, $quota, $_, \&got) } $self->of_kind('kill_host'));
    my $kept = sum0 map { $self->untold($account, $quota, $_, sub ($it) { !got($it) }) } $self->of_kind(qw(kill_host kill_worker));
    $self->at_most($acked - $lost, $used, "$name: clients got $acked, of which may not have been told $lost; used");
    $self->at_most($used, $acked + $kept + $self->units($account, $quota, \&unknown), "$name: used, of $acked that clients got");
    $self->at_most($acked, $cap, "$name: clients got") if $quotas{$quota} eq 'month';
    $self->at_most($issued - $used, $self->forfeits($account, $quota), "$name: forfeited");
    return;
}

# No stretch of the length of the sliding quota, and no minute, in which clients got more than the cap.
sub windows($self) {
    for my $account (@accounts) {
        my $cap = $self->{run}{cap}{$account};
        my @got = sort { $a->{replied} <=> $b->{replied} } grep { $_->{account} eq $account && got($_) } $self->{attempts}->@*;
        my %minute;
        for my $last (@got) {
            my $sum = sum0 map { $costs{$_->{location}}{slide} // 0 } grep { $_->{sent} >= $last->{replied} - $window && $_->{replied} <= $last->{replied} } @got;
            $self->at_most($sum, $cap->{slide}, "$account: clients got of slide in a minute before $last->{replied}");
            $minute{int $last->{sent} / 60} += $costs{$last->{location}}{burst} // 0 if int $last->{sent} / 60 == int $last->{replied} / 60;
        }
        $self->at_most($minute{$_}, $cap->{burst}, "$account: clients got of burst in minute $_") for sort keys %minute;
        my %issued = map { $_->{period} => $_->{issued} } $self->{world}->sql(q{SELECT q.period, q.issued FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
            JOIN billing.limits l USING (limit_no) WHERE a.external_id = ? AND l.limit_key = 'slide'}, $account);
        for my $end (keys %issued) {
            $self->at_most(sum0(map { $issued{$_} } grep { $_ <= $end && $_ >= $end - 20 } keys %issued), $cap->{slide}, "$account: issued of slide in the windows up to $end");
        }
    }
    return;
}

# K4: who got an answer has paid, who got another has not; but for what a worker had not told that died, or that had nobody to tell.
sub credit_of($self, $account, $type) {
    my ($row) = $self->{world}->sql(q{SELECT coalesce(-sum(l.quantity) FILTER (WHERE l.idem_key NOT LIKE '%:job-%'), 0) AS requests FROM billing.credit_ledger l
        JOIN billing.accounts a ON a.id = l.account_id JOIN billing.credit_types t USING (credit_no)
        WHERE a.external_id = ? AND t.credit_key = ? AND l.action IN ('deduct', 'overage', 'refund') AND l.idem_key ~ '^(take|over|back|late):'}, $account, $type);
    my $paid = $row->{requests};
    my $acked = $self->units($account, $type, \&got) + ($self->{spent}{$account}{$type} // 0);
    my $swept = sum0 map { $self->untold($account, $type, $_, \&got) } $self->of_kind(qw(kill_host kill_worker)),
        grep { my $reload = $_; grep { $_->{end} + 6 > $reload->{at} && $_->{begin} < $reload->{at} } $self->{run}{troubles}->@* } $self->of_kind('reload');
    $self->at_most($acked - $swept, $paid, "K4: $account, $type: clients got $acked, of which may have been swept $swept; paid");
    $self->at_most($paid, $acked + $self->units($account, $type, \&unknown), "K4: $account, $type: paid, of $acked that clients got");
    for my $job (grep { $_->{account} eq $account && $_->{type} eq $type } $self->{run}{jobs}->@*) {
        my ($net) = $self->{world}->sql('SELECT coalesce(-sum(quantity), 0) AS n FROM billing.credit_ledger WHERE idem_key IN (?, ?)', map { "$_:$job->{key}:$type" } qw(take back));
        $self->wrong("K3: $account: $job->{key} has $net->{n} $type, not $job->{units}") if $net->{n} != $job->{units};
    }
    return;
}

# K5: whoever was refused for want of credits lacked them at some moment between question and answer.
sub refusals($self) {
    my $slack = 0.5;    # a row has the time of its statement, not of its commit
    for my $it (grep { $_->{code} eq 'INSUFFICIENT_CREDITS' } $self->{attempts}->@*) {
        my @types = grep { !$quotas{$_} } keys $costs{$it->{location}}->%*;
        my $lacked = first {
            my $type = $_;
            my $rows = $self->{balances}{$it->{account}}{$type} //= [map { [$_->{at}, $_->{balance_after}] } $self->{world}->sql(q{SELECT extract(epoch FROM l.at) AS at, l.balance_after FROM billing.credit_ledger l
                JOIN billing.accounts a ON a.id = l.account_id JOIN billing.credit_types t USING (credit_no) WHERE a.external_id = ? AND t.credit_key = ? ORDER BY l.id}, $it->{account}, $type)];
            my @before = grep { $_->[0] < $it->{sent} - $slack } @$rows;
            min(map({ $_->[1] } grep { $_->[0] >= $it->{sent} - $slack && $_->[0] <= $it->{replied} + $slack } @$rows), @before ? $before[-1][1] : 0) < $costs{$it->{location}}{$type};
        } @types;
        $self->wrong("K5: $it->{account} was refused $it->{location} at $it->{replied}, and had credits") if !$lacked;
    }
    return;
}

sub ledger($self) {
    my $world = $self->{world};
    my $number = sub ($sql) { ($world->sql($sql))[0]{n} };
    $self->at_most($number->('SELECT count(*) AS n FROM billing.credit_holds'), 0, 'takings that nobody has decided');
    $self->at_most($number->('SELECT count(*) AS n FROM billing.credit_balances WHERE least(remaining, bought, used, overage, remaining - bought) < 0'), 0, 'K1: balances below zero');
    my $packs = $number->(q{SELECT count(*) AS n FROM billing.credit_ledger WHERE action = 'grant' AND idem_key NOT LIKE 'grant:g%'});
    $self->wrong("W5: $packs packs for $self->{run}{purchases} payments") if $packs != $self->{run}{purchases};
    return;
}

# Q2: where nothing can have been lost, all of a quota can be had, to the last unit.
sub spend_all($self) {
    my ($account, $quota) = ($accounts[0], 'requests');
    my $world = $self->{world};
    my $room = sub { ($world->sql(q{SELECT e.cap - coalesce(sum(q.used), 0) AS n FROM billing.effective_limits e JOIN billing.accounts a ON a.id = e.account_id
        LEFT JOIN billing.quota_periods q ON q.account_id = a.id AND q.limit_no = e.limit_no WHERE a.external_id = ? AND e.limit_key = ? GROUP BY e.cap}, $account, $quota))[0]{n} };
    my $refused = 0;
    for (my $number = 0; $refused < 4 && $number < 4000; $number++) {
        my $status = $world->host($number % 2)->get('/one/x', Authorization => "Bearer test:$account")->status;
        $self->{spent}{$account}{$quota} += $status == 200;
        $refused = $status == 402 ? $refused + 1 : 0;
    }
    my $left = eval { Billing::Process::wait_for(sub { $room->() <= 0 }, 5, 'all is used'); 0 } // $room->();
    $self->at_most($left, 0, "$account, $quota: refused, although there were left");
    return;
}

1;
