# A catalog that hosts cannot hold is told as such, with what to do, and the one before it goes on deciding. S8.
use v5.36;
use Billing::Test;

my @demo = (Authorization => 'Bearer demo-token');
my $world = world(locations => 'location /f/ { billing on; billing_account $user; billing_feature svg_export; proxy_pass http://app; }');
my $host = $world->host;
is $host->get('/f/x', @demo)->status, 403, 'the first catalog decides';

my $large = $world->sample_catalog;
push $large->{plans}{free}{features}->@*, 'svg_export';
$large->{plans}{"plan-$_-" . 'x' x 40} = {name => 'n' x 500, rank => $_, features => [], quotas => {requests => 1}, rates => {chatbot => undef}} for 10 .. 249;
$world->apply_catalog($large);
$host->wait_log(qr/\[error\].*the catalog has \d+ bytes, more than the 131072 that hosts can hold; merge plans or features and apply it again/);
is $host->get('/f/x', @demo)->status, 403, 'the one before it goes on deciding';

my $small = $world->sample_catalog;
push $small->{plans}{free}{features}->@*, 'svg_export';
$world->apply_catalog($small);
wait_for(sub { $host->get('/f/x', @demo)->status == 200 }, 5, 'one that fits is taken up again');
pass 'one that fits is taken up again';
done_testing;
