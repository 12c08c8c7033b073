# Where several rules refuse, the first in the fixed order is the one that is told; and an exception for an account ends by itself at its
# time. G3, G9.
use v5.36;
use Billing::Journey qw(answer_of);
use Billing::Test;

my $world = world(locations => <<'END_OF_LOCATIONS');
    billing on;
    billing_account $user;
    location /all/ { billing_plan >=pro; billing_feature white_label; billing_quota requests cost=1000; billing_rate chatbot; proxy_pass http://app; }
    location /plain/ { proxy_pass http://app; }
    location /white/ { billing_feature white_label; proxy_pass http://app; }
END_OF_LOCATIONS
my $host = $world->host;
sub ask($method, $path, $account) { answer_of($host->request($method, $path, headers => {$account ? (Authorization => "Bearer test:$account") : ()})) }

subtest 'G3: the first refusal wins' => sub {
    is ask('POST', '/all/x', undef), '401 ACCOUNT_REQUIRED', 'nobody, before everything';
    ask('GET', '/plain/x', 'a');
    my $refused = sub ($answer, @change) {
        $world->must('account', 'set', 'a', @change) if @change;
        my $told = eval { wait_for(sub { ask('POST', '/all/x', 'a') eq $answer }, 5, $answer) };
        ok $told, $answer or diag ask('POST', '/all/x', 'a');
    };
    # All that can refuse does at first; then one thing after another is mended, from the first on.
    $refused->('403 WRITE_DISABLED', '--writes', 'off', '--maintenance', 'operator', '--plan', 'starter', '--status', 'past_due', '--enforced', 'on',
        '--grace-until', '2001-01-01T00:00:00Z');
    $refused->('402 MAINTENANCE', '--writes', 'on');
    $refused->('402 BILLING_ENFORCED', '--maintenance', 'none');
    $refused->('402 SUBSCRIPTION_INACTIVE', '--enforced', 'off');
    $refused->('403 PLAN_REQUIRED', '--status', 'active');
    $refused->('403 FEATURE_NOT_IN_PLAN', '--plan', 'pro', '--feature', 'white_label=off');
    my $catalog = $world->sample_catalog;
    $catalog->{plans}{pro}{quotas}{requests} = 10;
    $catalog->{plans}{pro}{rates}{chatbot} = '0/min';
    $world->apply_catalog($catalog);
    $refused->('402 LIMIT_REQUESTS', '--feature', 'white_label=on');
    $catalog->{plans}{pro}{quotas}{requests} = 100_000;
    $world->apply_catalog($catalog);
    $refused->('429 RATE_CHATBOT');
};

subtest 'G9: an exception ends at its time' => sub {
    is ask('GET', '/white/x', 'e'), '403 FEATURE_NOT_IN_PLAN', 'the plan lacks it';
    $world->must('account', 'set', 'e', '--feature', 'white_label=on');
    wait_for(sub { ask('GET', '/white/x', 'e') eq '200' }, 5, 'the exception is known');
    $world->sql(q{UPDATE billing.account_features SET expires_at = now() + interval '3 s'});
    ok eval { wait_for(sub { ask('GET', '/white/x', 'e') eq '403 FEATURE_NOT_IN_PLAN' }, 15, 'its end') }, 'which is the end of it, without a further change';
    my ($late) = $world->sql('SELECT extract(epoch FROM now() - expires_at) AS seconds FROM billing.account_features');
    cmp_ok $late->{seconds}, '>=', 0, 'not before';
    cmp_ok $late->{seconds}, '<', 2 * Billing::Process::patience(), 'and at once';
};
done_testing;
