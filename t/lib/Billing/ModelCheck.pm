# What must be true after a run, whatever was done to the hosts and to PostgreSQL: an account's own record of what it got, against what PostgreSQL
# says was issued, used and taken. A bound is computed from the faults that were played; without them it is exact. Q1, U2, K1-K5.
# Owner: Billing::Model.
package Billing::ModelCheck;
use v5.36;
use Billing::Metrics ();
use Billing::ModelPlan qw(%costs %quotas @accounts);
use Billing::Process qw(wait_for);
use List::Util qw(first max min sum0);

my $window = 60;    # seconds of the sliding quota, and of the minute

sub new($class, $run) { return bless {run => $run, world => $run->world, attempts => $run->{attempts}, faults => $run->{faults}, problems => []}, $class }
sub problems($self) { $self->{problems}->@* }
sub wrong($self, $what) { push $self->{problems}->@*, $what; return }
sub at_most($self, $less, $more, $what) { $self->wrong("$what: $less, but at most $more") if $less > $more; return }

# Units of quota or credit `key` that attempts of the account asked for, as far as `which` says.
sub cost($attempt, $key) { return $costs{$attempt->{location}}{$key} // 0 }
sub units($self, $account, $key, $which) {
    return sum0 map { cost($_, $key) } grep { $_->{account} eq $account && $which->($_) } $self->{attempts}->@*;
}
sub got($attempt) { return $attempt->{status} == 200 }
sub unknown($attempt) { return $attempt->{status} == 0 }
sub of_kind($self, @kinds) { my %kind = map { $_ => 1 } @kinds; return grep { $kind{$_->{kind}} } $self->{faults}->@* }

# What a dead host may not have told: of its answers since it had told for certain.
sub untold($self, $account, $key, $fault, $which) {
    return $self->units($account, $key, sub ($it) {
        $it->{host} == $fault->{host} && $it->{replied} >= $fault->{since} && $it->{sent} <= $fault->{at} + 1 && $which->($it);
    });
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

sub rows_of($self, $account, $quota) {
    return $self->{world}->sql(q{SELECT q.period, q.issued, q.used, q.late, extract(epoch FROM q.starts) AS starts, extract(epoch FROM q.ends) AS ends
        FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id JOIN billing.limits l USING (limit_no)
        WHERE a.external_id = ? AND l.limit_key = ? AND q.period > 0 ORDER BY q.period}, $account, $quota);
}

# granted <= issued <= the largest cap that was in force, by what clients got alone, and by PostgreSQL's rows; used is what was granted.
sub quota_of($self, $account, $quota) {
    my $cap = $self->{run}{cap}{$account}{$quota};
    my @rows = $self->rows_of($account, $quota);
    my $name = "$account, $quota";
    $self->at_most($_->{issued}, $cap, "$name: issued in period $_->{period}") for @rows;
    $self->wrong("$name: period $_->{period} has used $_->{used} of $_->{issued} issued, $_->{late} late")
        for grep { $_->{used} > $_->{issued} || $_->{used} < 0 || $_->{late} } @rows;
    my ($used, $issued) = (sum0(map { $_->{used} } @rows), sum0(map { $_->{issued} } @rows));
    my $acked = $self->units($account, $quota, \&got) + ($self->{spent}{$account}{$quota} // 0);
    my $lost = sum0($self->{run}{forfeited}->@*, map { $self->untold($account, $quota, $_, \&got) } $self->of_kind('kill_host'));
    my $kept = sum0 map { $self->untold($account, $quota, $_, sub ($it) { !got($it) }) } $self->of_kind(qw(kill_host kill_worker));
    $self->at_most($acked - $lost, $used, "$name: clients got $acked, of which may not have been told $lost; used");
    $self->at_most($used, $acked + $kept + $self->units($account, $quota, \&unknown), "$name: used, of $acked that clients got");
    $self->at_most($acked, $cap, "$name: clients got") if $quotas{$quota} eq 'month';
    $self->at_most($issued - $used, $self->forfeits($account, $quota), "$name: forfeited");
    $self->period_of($account, $quota, $_, $lost, $kept) for @rows;
    my $homeless = $self->units($account, $quota, sub ($it) { got($it) && !grep { touches($it, $_) } @rows });
    $self->at_most($homeless, 0, "$name: got in periods of which nothing was issued");
    return;
}

# U4: what a client got within a period is used in that one, not in another; hosts may see a period begin a little late.
my $late = 0.2;
sub within($it, $row) { return $it->{sent} >= $row->{starts} + $late && $it->{replied} <= $row->{ends} }
sub touches($it, $row) { return $it->{replied} >= $row->{starts} && $it->{sent} <= $row->{ends} + $late }

sub period_of($self, $account, $quota, $row, $lost, $kept) {
    my $name = "U4: $account, $quota, period $row->{period}";
    my $least = $self->units($account, $quota, sub ($it) { got($it) && within($it, $row) });
    my $most = $self->units($account, $quota, sub ($it) { (got($it) || unknown($it)) && touches($it, $row) }) + ($self->{spent}{$account}{$quota} // 0);
    $self->at_most($least - $lost, $row->{used}, "$name: clients got $least in it; used");
    $self->at_most($row->{used}, $most + $kept, "$name: used, of $most that clients can have got in it");
    return;
}

# No stretch of the length of the sliding quota, and no minute, in which clients got more than the cap.
sub windows($self) {
    for my $account (@accounts) {
        my $cap = $self->{run}{cap}{$account};
        my @got = sort { $a->{replied} <=> $b->{replied} } grep { $_->{account} eq $account && got($_) } $self->{attempts}->@*;
        my %minute;
        for my $last (@got) {
            my $sum = sum0 map { cost($_, 'slide') } grep { $_->{sent} >= $last->{replied} - $window && $_->{replied} <= $last->{replied} } @got;
            $self->at_most($sum, $cap->{slide}, "$account: clients got of slide in a minute before $last->{replied}");
            $minute{int $last->{sent} / 60} += cost($last, 'burst') if int $last->{sent} / 60 == int $last->{replied} / 60;
        }
        $self->at_most($minute{$_}, $cap->{burst}, "$account: clients got of burst in minute $_") for sort keys %minute;
        my %issued = map { $_->{period} => $_->{issued} } $self->rows_of($account, 'slide');
        for my $end (keys %issued) {
            my $sum = sum0 map { $issued{$_} } grep { $_ <= $end && $_ >= $end - 20 } keys %issued;
            $self->at_most($sum, $cap->{slide}, "$account: issued of slide in the window that ends with $end");
        }
    }
    return;
}

sub ledger_of($self, $account, $type) {
    return @{$self->{ledger}{$account}{$type} //= [$self->{world}->sql(q{SELECT l.action, l.quantity, l.balance_after, l.idem_key, extract(epoch FROM l.at) AS at
        FROM billing.credit_ledger l JOIN billing.accounts a ON a.id = l.account_id JOIN billing.credit_types t USING (credit_no)
        WHERE a.external_id = ? AND t.credit_key = ? ORDER BY l.id}, $account, $type)]};
}

# K4: who got an answer has paid, who got another has not; but for what a worker had not told that died, or that had nobody to tell.
sub credit_of($self, $account, $type) {
    my @ledger = $self->ledger_of($account, $type);
    my $paid = -sum0 map { $_->{quantity} } grep { $_->{action} =~ /^(?:deduct|overage|refund)$/ && $_->{idem_key} !~ /:job-/ } @ledger;
    my $acked = $self->units($account, $type, \&got) + ($self->{spent}{$account}{$type} // 0);
    my $swept = sum0 map { $self->untold($account, $type, $_, \&got) } $self->of_kind(qw(kill_host kill_worker)),
        grep { my $reload = $_; grep { $_->{end} + 6 > $reload->{at} && $_->{begin} < $reload->{at} } $self->{run}{troubles}->@* } $self->of_kind('reload');
    $self->at_most($acked - $swept, $paid, "K4: $account, $type: clients got $acked, of which may have been swept $swept; paid");
    $self->at_most($paid, $acked + $self->units($account, $type, \&unknown), "K4: $account, $type: paid, of $acked that clients got");
    for my $job (grep { $_->{account} eq $account && $_->{type} eq $type } $self->{run}{jobs}->@*) {
        my $net = -sum0 map { $_->{quantity} } grep { $_->{idem_key} =~ /^(?:take|back):\Q$job->{key}\E:/ } @ledger;
        $self->wrong("K3: $account: $job->{key} has $net $type, not $job->{units}") if $net != $job->{units};
    }
    return;
}

# K5: whoever was refused for want of credits lacked them at some moment between question and answer.
sub refusals($self) {
    my $slack = 0.5;    # a row has the time of its statement, not of its commit
    for my $it (grep { $_->{code} eq 'INSUFFICIENT_CREDITS' } $self->{attempts}->@*) {
        my @types = grep { !$quotas{$_} } keys $costs{$it->{location}}->%*;
        my $lacked = first {
            my @rows = grep { $_->{at} <= $it->{replied} + $slack } $self->ledger_of($it->{account}, $_);
            shift @rows while @rows > 1 && $rows[1]{at} < $it->{sent} - $slack;
            !@rows || cost($it, $_) > min map { $_->{balance_after} } @rows;
        } @types;
        $self->wrong("K5: $it->{account} was refused $it->{location} at $it->{replied}, and had credits") if !$lacked;
    }
    return;
}

sub ledger($self) {
    my $world = $self->{world};
    my $number = sub ($sql) { ($world->sql($sql))[0]{n} };
    $self->at_most($number->('SELECT count(*) AS n FROM billing.credit_holds'), 0, 'takings that nobody has decided');
    $self->at_most($number->('SELECT count(*) AS n FROM billing.credit_balances WHERE least(remaining, bought, used, overage, remaining - bought) < 0'),
        0, 'K1: balances below zero');
    my $packs = $number->(q{SELECT count(*) AS n FROM billing.credit_ledger WHERE action = 'grant' AND idem_key NOT LIKE 'grant:g%'});
    $self->wrong("W5: $packs packs for $self->{run}{purchases} payments") if $packs != $self->{run}{purchases};
    return;
}

# While the hosts still run: each knows what PostgreSQL says, so does Redis, and what is issued is used, held by one of them, or forfeited. (E5, U2)
sub agree($self) {
    my $world = $self->{world};
    for my $account (@accounts) {
        my ($cap) = $world->sql(q{SELECT e.cap FROM billing.effective_limits e JOIN billing.accounts a ON a.id = e.account_id
            WHERE a.external_id = ? AND e.limit_key = 'requests'}, $account);
        for my $host ($world->hosts) {
            my $told = '';
            my $agrees = eval { wait_for(sub {
                my $answer = $host->get('/one/x', Authorization => "Bearer test:$account");
                $self->{spent}{$account}{requests} += $answer->status == 200;
                ($told) = ($answer->header('RateLimit-Policy') // '') =~ /q=(\d+)/;
                return defined $told && $told == $cap->{cap};
            }, 10, 'the cap') };
            $self->wrong("E5: $account: $host->{name} tells a cap of " . ($told // 'nothing') . ", not $cap->{cap}") if !$agrees;
        }
        my ($stamp, $there);
        eval { wait_for(sub {
            ($stamp) = map { $_->{stamp} } $world->sql('SELECT billing.stamp_text(stamp) AS stamp FROM billing.account_snapshots WHERE account = ?', $account);
            $there = $world->redis->client->hget("billing:account:{$account}", 'stamp') // $stamp;
            return $there eq $stamp;
        }, 10, 'Redis') } or $self->wrong("E5: $account: Redis holds $there, not $stamp");
    }
    my $bound = sum0 map { my $account = $_; map { $self->forfeits($account, $_) } keys %quotas } @accounts;
    my $missing;
    eval { wait_for(sub {
        my $held = sum0 map { Billing::Metrics->parse($_->get('/metrics')->body)->value('billing_quota_held_tokens') } $world->hosts;
        $missing = ($world->sql('SELECT coalesce(sum(issued - used), 0) AS n FROM billing.quota_periods'))[0]{n} - $held;
        return $missing >= 0 && $missing <= $bound;
    }, 10, 'all is held, used or forfeited') } or $self->wrong("U2: of what is issued $missing are neither used nor held, and at most $bound forfeited");
    return;
}

# Q2: where nothing can have been lost, all of a quota can be had, to the last unit.
sub spend_all($self) {
    my ($account, $quota) = ($accounts[0], 'requests');
    my $world = $self->{world};
    my $room = sub {
        ($world->sql(q{SELECT e.cap - coalesce(sum(q.used), 0) AS n FROM billing.effective_limits e JOIN billing.accounts a ON a.id = e.account_id
            LEFT JOIN billing.quota_periods q ON q.account_id = a.id AND q.limit_no = e.limit_no
            WHERE a.external_id = ? AND e.limit_key = ? GROUP BY e.cap}, $account, $quota))[0]{n};
    };
    my $refused = 0;
    for (my $number = 0; $refused < 4 && $number < 4000; $number++) {
        my $status = $world->host($number % 2)->get('/one/x', Authorization => "Bearer test:$account")->status;
        $self->{spent}{$account}{$quota} += $status == 200;
        $refused = $status == 402 ? $refused + 1 : 0;
    }
    my $left = eval { wait_for(sub { $room->() <= 0 }, 5, 'all is used'); 0 } // $room->();
    $self->at_most($left, 0, "$account, $quota: refused, although there were left");
    return;
}

1;
