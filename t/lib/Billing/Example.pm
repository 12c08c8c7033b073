# One of conf/examples, as it is: its nginx.conf with nothing replaced but addresses and files, its catalog, its settings from the
# environment, and the requests that its README shows.
#
#   my $example = Billing::Example->new('minimal-tiers', env => {SUCCESS_URL => ...}, replace => {'keys.json' => $file});
#   my $world = $example->world;          # a world of Billing::Test, with one host and a stand-in for Stripe
#   $example->walk_readme(TOKEN => ...);  # each command of a console block gives what stands below it
package Billing::Example;
use v5.36;
use Billing::Process qw(root slurp);
use Billing::Test ();
use Test::More ();

# env: the settings that nginx and the command find. replace => {text of nginx.conf => other text}; webhook: its location's path;
# without_stripe => 1: its stripe.conf is not there; catalog => data in place of the file's; stripe => {options for Billing::Stripe}; prepare => what is done in the world before nginx
# starts, and answers more settings.
sub new($class, $name, %option) {
    my $self = bless {name => $name, folder => root() . "/conf/examples/$name", without_stripe => $option{without_stripe}}, $class;
    my %env = %{$option{env} // {}};
    my $secret = 'whsec_' . 'example' x 4;
    my %stripe = (key => 'sk_test_' . 'example' x 4, portal => 1, %{$option{stripe} // {}});
    @env{qw(STRIPE_SECRET_KEY STRIPE_WEBHOOK_SECRET)} = ($stripe{key}, $secret);
    local @ENV{keys %env} = values %env;    # of the command
    $self->{world} = Billing::Test::world(
        start => 0, redis => 0, env => \%env, catalog => $option{catalog} // "$self->{folder}/catalog.json",
        stripe => {%stripe, catalog => $self->for_sale($option{catalog}), webhook => {path => $option{webhook}, secret => $secret}},
        conf => '%%BILLING%%',              # until the stand-in's address is known
    );
    if ($option{prepare}) {
        my %more = $option{prepare}->($self->{world});
        @{$self->host->{env}}{keys %more} = values %more;
    }
    $self->{conf} = $self->configuration(%{$option{replace} // {}});
    $self->{world}->host->write_config($self->{conf});
    $self->{world}->host->start if $option{start} // 1;
    return $self;
}

sub world($self) { $self->{world} }
sub host($self) { $self->{world}->host }
sub conf($self) { $self->{conf} }
sub file($self, $name) { "$self->{folder}/$name" }

# The catalog with its settings filled in, as Stripe has it.
sub for_sale($self, $catalog) {
    my $json = JSON::PP->new->utf8->canonical;
    my $text = $catalog ? $json->encode($catalog) : slurp("$self->{folder}/catalog.json");
    return $json->decode($text =~ s/"env:(\w+)"/"\"$ENV{$1}\""/ger);
}

sub slurp_if($file) { return -e $file ? slurp($file) : undef }

# What the shipped file has to be told of this machine.
sub configuration($self, %replace) {
    my $conf = slurp("$self->{folder}/nginx.conf");
    my $world = $self->{world};
    my %all = (
        'load_module modules/ngx_http_billing_module.so;' => '%%GLOBALS%%', 'http {' => 'http { %%HTTP_GLOBALS%%',
        'file:/etc/nginx/billing.dsn' => '"%%DSN%%"', 'billing_catalog catalog.json' => 'billing_catalog %%CATALOG%%',
        'listen 8080' => 'listen 127.0.0.1:%%PORT%%', 'server 127.0.0.1:3000' => 'server %%UPSTREAM%%', %replace,
    );
    # Stripe's part may be a file of its own, which need not be there.
    my $part = slurp_if("$self->{folder}/stripe.conf");
    $conf =~ s/^\h*include stripe\.con\[f\];/$self->{without_stripe} ? '' : $part/me if defined $part;
    $all{'key=env:STRIPE_SECRET_KEY'} = 'key=env:STRIPE_SECRET_KEY api=' . $world->stripe->url if !$self->{without_stripe};
    for my $text (sort keys %all) {
        $conf =~ s/\Q$text\E/$all{$text}/ or die "conf/examples/$self->{name}/nginx.conf has no \"$text\"\n";
    }
    return $conf;
}

# A command's output is one of the lines below it, or several; "…" stands for anything. NAME => value fills in $NAME.
sub walk_readme($self, %value) {
    my ($address, $stripe) = ($self->host->address, $self->{world}->stripe->url);
    my $count = 0;
    for my $block (slurp("$self->{folder}/README.md") =~ /^```console\n(.*?)^```/gms) {
        for my $step (split /^(?=\$ )/m, $block) {
            my ($command, $wanted) = $step =~ /\A\$ (.*?[^\\])\n(.*)\z/s or die "no command: $step\n";
            my $shown = $command =~ s/\\\n\s*/ /gr;
            my $run = $shown =~ s{localhost:8080}{$address}gr;
            local @ENV{keys %value} = values %value;
            my $said = qx($run);
            $said =~ s{\Q$stripe\E/c/}{https://checkout.stripe.com/c/}g;
            $said =~ s{\Q$stripe\E/p/}{https://billing.stripe.com/p/}g;
            my $pattern = join '.*', map { quotemeta } split /…/, $wanted =~ s/\s+\z//r, -1;
            local $Test::Builder::Level = $Test::Builder::Level + 1;
            Test::More::like($said =~ s/\s+\z//r, qr/\A$pattern\z/s, "README: $shown");
            $count++;
        }
    }
    return $count;
}

# views.sql in a schema app, as its head says, and a connection of a role that is in billing_reader.
sub reader($self) {
    my $world = $self->{world};
    $world->sql('CREATE SCHEMA app');
    local $ENV{PGOPTIONS} = '-c client_min_messages=warning';
    system('psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-d', $world->dsn, '-c', 'SET search_path = app', '-f', "$self->{folder}/views.sql") == 0
        or die "$self->{folder}/views.sql cannot be applied\n" for 1, 2;
    $world->sql($_) for 'CREATE ROLE example_app LOGIN IN ROLE billing_reader', 'GRANT USAGE ON SCHEMA app TO example_app';
    return $world->db->dbi(user => 'example_app');
}

# All events have been answered, and all that they say has been done.
sub settled($self) {
    $self->{world}->stripe->wait_delivered;
    Billing::Process::wait_for(sub { !$self->{world}->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')}) },
        20, 'all events are processed');
    return;
}

1;
